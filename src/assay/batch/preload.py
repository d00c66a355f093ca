"""Imports of every audit, for the server process that forks one process a job. Nothing here computes."""

import onnx
import onnxruntime
import safetensors.torch
import tokenizers
import torch._dynamo
import torch.export
import torch.fx
import transformers
import transformers.modeling_utils
import transformers.models.auto.image_processing_auto
import transformers.models.auto.modeling_auto

import assay.auditing.run
import assay.data
import assay.formats
import assay.formats.huggingface.load
import assay.formats.onnx.load
import assay.formats.safetensors
import assay.registry
import assay.report.bundle

__all__ = ["assay", "onnx", "onnxruntime", "safetensors", "tokenizers", "torch", "transformers"]
