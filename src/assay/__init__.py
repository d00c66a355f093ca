"""assay: audits of machine-learning models for backdoors, in the form of their deployment.

import assay
result = assay.audit("model.safetensors", "path/to/data", arch="resnet20-cifar")
print(result.verdict, result.reason)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay._version import __version__

if TYPE_CHECKING:
    from assay.auditing.api import audit as audit
    from assay.core.result import Audit as Audit

__all__ = ["Audit", "__version__", "audit"]


def __getattr__(name: str) -> Any:
    """Import torch and the rest on first use only, so that ``assay --help`` answers at once."""
    if name not in {"audit", "Audit"}:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    from assay.auditing.api import audit
    from assay.core.result import Audit

    Audit._repr_html_ = _notebook_view  # type: ignore[attr-defined]  # the report that notebooks show inline
    return {"audit": audit, "Audit": Audit}[name]


def _notebook_view(audit: Audit) -> str:
    from assay.report.page import notebook

    return notebook(audit)
