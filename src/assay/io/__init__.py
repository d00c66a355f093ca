"""Reading and writing of files, bytes and text."""
