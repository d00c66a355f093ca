"""Backdoors that compression activates."""
