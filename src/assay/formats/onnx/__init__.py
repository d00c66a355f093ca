"""Loading of ONNX files, and their execution in torch."""
