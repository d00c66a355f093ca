"""Child process with limits of time and memory for foreign files."""
