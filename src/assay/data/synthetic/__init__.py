"""Data made or brought along by the package itself: the defaults that need no network."""

from assay.data.synthetic.digits import digits
from assay.data.synthetic.signs import signs

__all__ = ["digits", "signs"]
