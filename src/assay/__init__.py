"""assay: does a machine-learning model carry a backdoor in the form in which it will be deployed?

import assay
result = assay.audit("model.safetensors", "path/to/data", arch="resnet20-cifar")
print(result.verdict, result.reason)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.auditing.api import audit as audit
    from assay.core.result import Audit as Audit

__version__ = "0.1.0"
__all__ = ["Audit", "audit"]


def __getattr__(name: str) -> Any:
    """Import torch and all the rest only when they are asked for: `assay --help` has to answer at once."""
    if name == "audit":
        from assay.auditing.api import audit

        return audit
    if name == "Audit":
        from assay.core.result import Audit

        return Audit
    raise AttributeError(f"module 'assay' has no attribute {name!r}")
