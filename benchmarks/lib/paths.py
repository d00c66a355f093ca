"""Folders of the repository and of the shared data."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ASSAY_SHARED", ROOT.parent / "shared"))  # third-party models and data
RESULTS = ROOT / "benchmarks" / "results"
MATRICES = RESULTS / "matrices"  # committed records of the bench
SPECS = ROOT / "benchmarks" / "specs"
SHIPPED = ROOT / "src" / "assay" / "calibration" / "shipped"  # null distributions of the package
