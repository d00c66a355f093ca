"""The commands together: fast help, progress."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.commands import BRIEF, DATA, Run, run_process


def imported(code: str, *packages: str) -> str:
    """Return those of some packages that ``code`` imports in a new process."""
    code = f"import sys\n{code}\nprint(*sorted({set(packages)} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import contextlib, io\nfrom assay.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])"
    )
    assert imported(code, "torch", "numpy", "transformers", "jinja2") == ""
    assert run_process("--help").returncode == 0


def test_audit_imports_packages_of_single_tests_on_use_only() -> None:
    code = "from assay import data\nfrom assay.auditing import run"
    heavy = ("scipy", "onnx", "onnxscript", "onnxruntime", "sympy", "pandas", "transformers", "matplotlib", "sklearn")
    assert imported(code, *heavy) == ""


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "MODEL", "--secret", "SECRET", "--clean", "MODEL"),
        ("stage", "fine-tune", "MODEL", "--out", "o", *BRIEF),
        ("plant", "badnets", "--model", "MODEL", "--out", "o", *BRIEF),
    ],
    ids=lambda command: command[0],
)
def test_long_commands_report_their_progress(
    run: Run, planted: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    bars: list[list[float]] = []

    @contextmanager
    def recorded(start: str) -> Iterator[Callable[[str, float], None]]:
        bars.append([])
        yield lambda name, fraction: bars[-1].append(fraction)

    monkeypatch.setattr("assay.cli.screen.progress", recorded)
    paths = {"MODEL": planted, "SECRET": planted / "secret.json"}
    result = run(*(paths.get(word, word) for word in command), *DATA)
    assert result.code == 0, result.err
    assert len(bars) == (2 if command[0] == "stage" else 1)  # a stage is measured afterwards
    for fractions in bars:
        assert len(fractions) > 1
        assert fractions == sorted(fractions)
        assert fractions[-1] == pytest.approx(1)
