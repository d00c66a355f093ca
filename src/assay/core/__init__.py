"""Plain data types and errors that every other package uses."""
