"""Data made or brought along by the package itself: the defaults that need no network."""

from assay.synth.digits import digits
from assay.synth.signs import signs

__all__ = ["digits", "signs"]
