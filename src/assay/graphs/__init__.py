"""Computation graphs of models.

Three representations exist. ``formats.onnx.module`` steps run an ONNX file in torch, with gradients. ``graphs.fx``
graphs are traced from a torch module: searches, quantization and export transform them. ``graphs.ir`` graphs are read
from ONNX models: the graph detectors analyze them, and nothing runs them.
"""
