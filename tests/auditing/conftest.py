"""What the tests of audits share."""

from __future__ import annotations

from typing import Any

import pytest

from assay.core.finding import Finding
from assay.detectors.base import Detector


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of all detectors that ran."""
    ran: list[str] = []
    original = Detector.__call__

    def counted(self: Detector, *args: Any, **options: Any) -> Finding:
        ran.append(self.name)
        return original(self, *args, **options)

    monkeypatch.setattr(Detector, "__call__", counted)
    return ran
