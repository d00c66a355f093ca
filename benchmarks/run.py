"""Run one benchmark by name.

    python benchmarks/run.py                     # list the benchmarks
    python benchmarks/run.py NAME [ARGUMENTS]    # run one; its own docstring describes the arguments

A benchmark writes ``benchmarks/results/NAME.json``. ``results_page`` makes docs/results.md from these files.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_RUNNABLE = {"lib", "results", "specs"}  # folders without benchmarks


def benchmarks() -> dict[str, Path]:
    """Return the file of each benchmark by its name."""
    files = sorted(HERE.glob("*/*.py"))
    return {path.stem: path for path in files if path.parent.name not in NOT_RUNNABLE and path.stem != "__init__"}


def summary(path: Path) -> str:
    """Return the first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def main(arguments: list[str]) -> int:
    """Run the benchmark named first in ``arguments``, or list all; returns the exit code."""
    known = benchmarks()
    if not arguments:
        for name, path in known.items():
            print(f"{path.parent.name + '/' + name:40} {summary(path)}")
        return 0
    name, *rest = arguments
    if name not in known:
        print(f"expected a benchmark, got {name!r}. Fix: choose one of {', '.join(known)}", file=sys.stderr)
        return 2
    path = known[name]
    sys.argv = [f"{Path(sys.argv[0])} {name}", *rest]
    runpy.run_module(f"{path.parent.name}.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
