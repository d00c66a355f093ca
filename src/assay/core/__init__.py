"""Plain data types and errors for all other packages."""
