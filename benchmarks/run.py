"""Run one benchmark by name.

    python benchmarks/run.py                     # list the benchmarks
    python benchmarks/run.py NAME [ARGUMENTS]    # run one; NAME --help describes the arguments

A benchmark writes ``benchmarks/results/NAME.json``. ``results_page`` makes docs/results.md from these files.
"""

from __future__ import annotations

import ast
import importlib
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
    """Run the benchmark named by the first argument, or list all. Return the exit code."""
    files = benchmarks()
    if not arguments:
        for name, path in files.items():
            print(f"{path.parent.name + '/' + name:40} {summary(path)}")
        return 0
    name, *rest = arguments
    if name not in files:
        print(f"expected a benchmark, got {name!r}. Fix: choose one of {', '.join(files)}", file=sys.stderr)
        return 2
    path = files[name]
    sys.argv = [f"benchmarks/run.py {name}", *rest]
    # An ordinary import, so that worker processes find the classes of the module.
    importlib.import_module(f"{path.parent.name}.{name}").cli()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
