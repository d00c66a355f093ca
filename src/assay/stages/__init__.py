"""Supply-chain stages: training, pruning, quantization, export and others."""
