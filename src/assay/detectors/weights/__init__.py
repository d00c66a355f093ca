"""Detectors that analyze weights."""
