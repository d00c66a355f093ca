"""Kind of a model file or folder, from its names and headers. This package imports neither torch nor transformers."""

from assay.kinds.look import Seen, first_look, look

__all__ = ["Seen", "first_look", "look"]
