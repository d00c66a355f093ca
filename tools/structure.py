"""Measure and check the structure of ``src/assay``: modules, imports and functions.

Without an option the numbers are printed. ``--check`` compares them with the limits and exits with 1 above one of them.
``--list NAME`` prints the places behind a number. Imports inside functions count for circles and layers; the longest
chain uses the imports at module level only.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import statistics
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
MAX_PARAMETERS = 6
MAX_LINES = 50  # of a function, docstring included
SMALL = 2  # lines or statements of a small function's body
LIMITS = {
    "root_modules": 6,
    "import_circles": 0,
    "upward_imports": 0,
    "longest_import_chain": 14,
    "many_parameters_outside_cli": 5,
    "small_single_use_private": 120,
}


@dataclass(frozen=True)
class Function:
    """A function or method of the package, nested ones included."""

    path: str
    line: int
    name: str
    lines: int
    body_lines: int  # without the docstring
    statements: int  # at the top level of the body, without the docstring
    parameters: int  # without self and cls
    mentions: int  # of its name in its file, the definition included

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"

    @property
    def in_cli(self) -> bool:
        """True for functions of the command line."""
        return re.search(r"(^|/)cli(/|\.py$)", self.path) is not None

    @property
    def is_single_use_private(self) -> bool:
        """True for a private function with exactly one use in its file."""
        return self.name.startswith("_") and not self.name.startswith("__") and self.mentions == 2


@dataclass(frozen=True)
class Import:
    """One module of the package imports another."""

    importer: str
    imported: str
    line: int
    at_module_level: bool


def functions(root: Path, package: str) -> list[Function]:
    """Return all functions of a package under ``root/src``."""
    found = []
    for path in sorted((root / "src" / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                found.append(
                    Function(
                        path=path.relative_to(root).as_posix(),
                        line=node.lineno,
                        name=node.name,
                        lines=_last_line(node) - node.lineno + 1,
                        body_lines=_last_line(body[-1]) - body[0].lineno + 1 if body else 0,
                        statements=len(body),
                        parameters=len(_parameters(node.args)),
                        mentions=len(re.findall(rf"\b{node.name}\b", source)),
                    )
                )
    return found


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _parameters(arguments: ast.arguments) -> list[str]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [argument.arg for argument in [*named, *starred] if argument.arg not in ("self", "cls")]


def imports(root: Path, package: str) -> list[Import]:
    """Return the imports between the modules of a package under ``root/src``. The package is not executed."""
    sys.path.insert(0, str(root / "src"))
    importlib.invalidate_caches()
    try:
        graph = grimp.build_graph(package, cache_dir=None)
    finally:
        sys.path.remove(str(root / "src"))
    found = []
    for importer in sorted(graph.modules):
        lazy = _lines_in_functions(root / "src", importer)
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            details = graph.get_import_details(importer=importer, imported=imported)
            lines = sorted(detail["line_number"] for detail in details)
            found.append(Import(importer, imported, lines[0], at_module_level=not lazy.issuperset(lines)))
    return found


def _lines_in_functions(source_folder: Path, module: str) -> set[int]:
    path = source_folder.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    spans = (range(n.lineno, _last_line(n) + 1) for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {line for span in spans for line in span}


def import_circles(found: list[Import]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others of the group."""
    graph = nx.DiGraph((i.importer, i.imported) for i in found)
    return sorted(sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1)


def longest_chain(found: list[Import]) -> list[str]:
    """Return the modules of the longest import chain. A circle counts as one module."""
    circles = nx.condensation(nx.DiGraph((i.importer, i.imported) for i in found if i.at_module_level))
    return [", ".join(sorted(circles.nodes[node]["members"])) for node in nx.dag_longest_path(circles)]


def upward_imports(root: Path, found: list[Import]) -> list[Import] | None:
    """Return the imports against the layers contracts of ``pyproject.toml``, or None if it has no such contract.

    Layers separated by ``|`` are independent of each other; layers separated by ``:`` may import each other.
    """
    path = root / "pyproject.toml"
    settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    contracts = settings.get("tool", {}).get("importlinter", {}).get("contracts", [])
    layers = [contract for contract in contracts if contract["type"] == "layers"]
    return [i for i in found if any(_is_upward(i, contract) for contract in layers)] if layers else None


def _is_upward(edge: Import, contract: dict[str, Any]) -> bool:
    ignored = (_pattern(line) for line in contract.get("ignore_imports", []))
    if any(pattern.fullmatch(f"{edge.importer} -> {edge.imported}") for pattern in ignored):
        return False
    for container in contract.get("containers") or [""]:
        upper, lower = (_layer(module, contract["layers"], container) for module in (edge.importer, edge.imported))
        if upper and lower and (upper[0] > lower[0] or (upper[0] == lower[0] and upper[1] != lower[1] and upper[2])):
            return True
    return False


def _layer(module: str, layers: list[str], container: str) -> tuple[int, str, bool] | None:
    """Return the row of a module's layer from the top, its name, and True if its row is of independent layers."""
    for row, line in enumerate(layers):
        for layer in re.split(r"[|:]", line):
            name = f"{container}.{layer.strip(' ()')}".removeprefix(".")
            if f"{module}.".startswith(f"{name}."):
                return row, name, "|" in line
    return None


def _pattern(ignored: str) -> re.Pattern[str]:
    return re.compile(re.escape(ignored).replace(r"\ ", " ").replace(r"\*\*", r"[\w.]+").replace(r"\*", r"\w+"))


def places(root: Path, package: str, found: list[Function]) -> dict[str, list[str] | None]:
    """Return the places behind each number; None for ``upward_imports`` without a contract."""
    edges = imports(root, package)
    upward = upward_imports(root, edges)
    modules = (path.relative_to(root).as_posix() for path in sorted((root / "src" / package).glob("*.py")))
    single = [f for f in found if f.is_single_use_private]
    many = [f for f in found if f.parameters > MAX_PARAMETERS]
    return {
        "root_modules": list(modules),
        "import_circles": [" <-> ".join(circle) for circle in import_circles(edges)],
        "upward_imports": None if upward is None else [_import_place(root, edge) for edge in upward],
        "longest_import_chain": [f"{upper} -> {lower}" for upper, lower in pairwise(longest_chain(edges))],
        "many_parameters": [f"{f}, {f.parameters} parameters" for f in many],
        "many_parameters_outside_cli": [f"{f}, {f.parameters} parameters" for f in many if not f.in_cli],
        "single_use_private": [str(f) for f in single],
        "small_single_use_private": [str(f) for f in single if f.statements <= SMALL],
        "two_line_single_use_private": [str(f) for f in single if f.body_lines <= SMALL],
        "two_line_functions": [str(f) for f in found if 1 <= f.body_lines <= SMALL],
        "long_functions": [f"{f}, {f.lines} lines" for f in found if f.lines > MAX_LINES],
    }


def _import_place(root: Path, edge: Import) -> str:
    path = root / "src" / Path(*edge.importer.split("."))
    name = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).relative_to(root).as_posix()
    return f"{name}:{edge.line}: imports {edge.imported}"


def measure(root: Path, package: str) -> dict[str, float | None]:
    """Return the numbers of a package under ``root/src``."""
    found = functions(root, package)
    lines = sorted(f.lines for f in found)
    return {
        **{name: None if there is None else len(there) for name, there in places(root, package, found).items()},
        "functions": len(found),
        "function_lines_median": statistics.median(lines) if lines else 0,
        "function_lines_p90": lines[int(0.9 * len(lines))] if lines else 0,
        "function_lines_max": lines[-1] if lines else 0,
    }


def breaches(numbers: dict[str, float | None]) -> list[str]:
    """Return one line for each number above its limit."""
    above = [(name, numbers[name], limit) for name, limit in LIMITS.items() if (numbers[name] or 0) > limit]
    return [f"{name}: {number}, limit {limit}. See: --list {name}" for name, number, limit in above]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=ROOT, help="repository to measure")
    parser.add_argument("--package", default="assay", help="package under src to measure")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the numbers as JSON")
    output.add_argument("--check", action="store_true", help="print the numbers above a limit; exit code 1 if any is")
    output.add_argument("--list", metavar="NAME", help="print the places behind the number NAME of the table")
    options = parser.parse_args(arguments)
    if options.list:
        there = places(options.root, options.package, functions(options.root, options.package))
        if options.list not in there:
            parser.error(f"expected one of {', '.join(there)}, got {options.list}")
        print(*(there[options.list] or []), sep="\n")
        return 0
    numbers = measure(options.root, options.package)
    if options.check:
        found = breaches(numbers)
        print("\n".join([*found, f"{len(found)} limits exceeded"]))
        return 1 if found else 0
    if options.json:
        print(json.dumps(numbers, indent=2))
        return 0
    for name, number in numbers.items():
        limit = f"limit {LIMITS[name]}" if name in LIMITS else ""
        print(f"{name:28} {'unknown' if number is None else f'{number:g}':>8}  {limit}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
