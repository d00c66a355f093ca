"""Kind of a model file or folder, from names and headers, without torch."""
