"""Loading of Hugging Face model folders."""
