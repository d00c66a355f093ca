"""Toy attack, detector and mitigation, added to a scratch checkout by the steps of CONTRIBUTING.

    python benchmarks/run.py extensions      # -> benchmarks/results/extensions.json

Each adds its own file, edits the ``__init__`` of its package, and adds a test file. Then its contract tests run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lib import commands
from lib.paths import ROOT
from lib.results import save_result

TEST = '''"""Test of a toy method."""

from {module} import {kind}


def test_{test}_is_registered() -> None:
    from assay import registry

    assert "{name}" in {{*registry.ATTACKS, *registry.STAGES, *(d.name for d in registry.all_detectors())}}
    assert {kind}.__doc__
'''


@dataclass(frozen=True)
class Toy:
    """A method of the tutorials, and its place in the package."""

    source: str  # file in docs/tutorials
    kind: str
    name: str
    folder: str  # subpackage of the method
    package: str  # package with the list of methods, and folder of the test file
    contract: str  # contract tests

    @property
    def module(self) -> str:
        """Return the name of the module to import."""
        return f"assay.{self.folder}.{self.source}"


TOYS = (
    Toy("corner_cross", "CornerCross", "corner-cross", "attacks.poisoning", "attacks", "attacks"),
    Toy("spectral_norm", "SpectralNorm", "spectral-norm", "detectors.weights", "detectors", "detectors"),
    Toy("weight_clipping", "WeightClipping", "weight-clipping", "mitigations", "mitigations", "stages"),
)


def add(toy: Toy, checkout: Path) -> list[str]:
    """Follow the three steps of CONTRIBUTING, and return the files touched."""
    package = checkout / "src/assay"
    source = (ROOT / f"docs/tutorials/{toy.source}.py").read_text()
    (package / f"{toy.folder.replace('.', '/')}/{toy.source}.py").write_text(source)
    listing = package / toy.package / "__init__.py"
    text = listing.read_text()
    first = re.search(r"^from ", text, re.MULTILINE)
    assert first is not None
    text = f"{text[: first.start()]}from {toy.module} import {toy.kind}\n{text[first.start() :]}"
    listing.write_text(text.replace("__all__ = [", f'__all__ = [\n    "{toy.kind}",', 1))
    test = checkout / f"tests/{toy.package}/test_{toy.source}.py"
    test.write_text(TEST.format(module=toy.module, kind=toy.kind, name=toy.name, test=toy.source))
    status = subprocess.run(
        ["git", "status", "--short", "-uall"], cwd=checkout, capture_output=True, text=True, check=True
    )
    return [line[3:] for line in status.stdout.splitlines()]


def tested(toy: Toy, checkout: Path) -> dict[str, object]:
    """Run the method's own test and its contract tests in the checkout."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/{toy.package}/test_{toy.source}.py"]
    command += [f"tests/contract/test_{toy.contract}.py", "-k", f"{toy.source} or {toy.name}"]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=environment)
    return {"passed": done.returncode == 0, "summary": done.stdout.strip().splitlines()[-1]}


def main() -> None:
    """Add each toy to a checkout of its own, and write the result file."""
    rows = {}
    for toy in TOYS:
        with tempfile.TemporaryDirectory() as scratch:
            checkout = Path(scratch) / "checkout"
            subprocess.run(["git", "worktree", "add", "--detach", "-q", str(checkout)], cwd=ROOT, check=True)
            try:
                rows[toy.name] = {"files": add(toy, checkout), **tested(toy, checkout)}
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], cwd=ROOT, check=True)
        print(toy.name, rows[toy.name], flush=True)
    save_result("extensions", {"methods": rows})


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    main()


if __name__ == "__main__":
    cli()
