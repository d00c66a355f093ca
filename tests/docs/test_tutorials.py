"""Tests of the code in the tutorials."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch
from support.toys import artifact_of, toy

from assay.core.dataset import Split
from assay.core.finding import Outcome

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_tutorial_detector_scores_a_model() -> None:
    detector = runpy.run_path(str(ROOT / "docs/tutorials/spectral_norm.py"))["SpectralNorm"]()
    module, x, y = toy(4, None)
    artifact = artifact_of(torch.nn.Sequential(module, torch.nn.Linear(4, 4)), 4)
    finding = detector(artifact, Split(x, y))
    assert finding.outcome is Outcome.SCORED
    assert finding.score >= 1.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#?)([^)]*)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page}: {target}#{anchor}"
