"""Kind of a model file or folder, from its names and headers. This package imports neither torch nor transformers."""

from assay.kinds.look import Seen, look

__all__ = ["Seen", "look"]
