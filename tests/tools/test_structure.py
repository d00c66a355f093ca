"""Each structure number is right on a made-up package, and each limit fails above it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import structure

PACKAGE = "made_up_package"
CONTRACT = """
[tool.importlinter]
root_package = "made_up_package"

[[tool.importlinter.contracts]]
name = "layers"
type = "layers"
containers = ["made_up_package"]
layers = ["cli", "left | right", "(old) : core"]
"""


def write(root: Path, **modules: str) -> Path:
    """Write the modules of a package; ``__`` in a name separates folders."""
    package = root / "src" / PACKAGE
    for name, text in {"": "", **modules}.items():
        path = package.joinpath(*name.split("__")).with_suffix(".py") if name else package / "__init__.py"
        for folder in (path.parent, package):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").touch()
        path.write_text(text.replace("PKG", PACKAGE), encoding="utf-8")
    return root


def measured(root: Path) -> dict[str, float | None]:
    """Return the numbers of the made-up package."""
    return structure.measure(root, PACKAGE)


def listed(root: Path, name: str) -> list[str] | None:
    """Return the places behind a number."""
    return structure.places(root, PACKAGE, structure.functions(root, PACKAGE))[name]


def test_small_package_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, a="from PKG import b", b="def f(x):\n    return x\n")
    assert structure.main(["--root", str(tmp_path), "--package", PACKAGE, "--check"]) == 0
    assert capsys.readouterr().out == "0 limits exceeded\n"


def test_check_exits_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, **{f"m{index}": "" for index in range(6)})
    assert structure.main(["--root", str(tmp_path), "--package", PACKAGE, "--check"]) == 1
    assert "root_modules: 7, limit 6" in capsys.readouterr().out


@pytest.mark.parametrize("name", structure.LIMITS)
def test_every_limit(tmp_path: Path, name: str) -> None:
    numbers = {**measured(write(tmp_path)), **structure.LIMITS}
    assert structure.breaches(numbers) == []
    limit = structure.LIMITS[name]
    assert structure.breaches({**numbers, name: limit + 1}) == [
        f"{name}: {limit + 1}, limit {limit}. See: --list {name}"
    ]


def test_modules_in_folders_are_not_at_the_root(tmp_path: Path) -> None:
    write(tmp_path, a="", folder__b="")
    assert listed(tmp_path, "root_modules") == [f"src/{PACKAGE}/__init__.py", f"src/{PACKAGE}/a.py"]


def test_circle_through_a_lazy_import(tmp_path: Path) -> None:
    write(tmp_path, a="import PKG.b", b="import PKG.c", c="def f():\n    from PKG import a\n")
    assert listed(tmp_path, "import_circles") == [" <-> ".join(f"{PACKAGE}.{name}" for name in "abc")]
    write(tmp_path, c="")
    assert listed(tmp_path, "import_circles") == []


def test_longest_chain_counts_imports_at_module_level(tmp_path: Path) -> None:
    write(tmp_path, a="from PKG import b, c", b="from PKG import c", c="def f():\n    from PKG import d\n", d="")
    assert listed(tmp_path, "longest_import_chain") == [f"{PACKAGE}.a -> {PACKAGE}.b", f"{PACKAGE}.b -> {PACKAGE}.c"]
    write(tmp_path, c="from PKG import d\n")
    assert measured(tmp_path)["longest_import_chain"] == 3


def test_longest_chain_counts_a_circle_once(tmp_path: Path) -> None:
    write(tmp_path, a="from PKG import b", b="from PKG import c", c="from PKG import b, d", d="")
    assert measured(tmp_path)["longest_import_chain"] == 2


def test_upward_imports_are_unknown_without_a_contract(tmp_path: Path) -> None:
    assert measured(write(tmp_path))["upward_imports"] is None


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("cli", "left", 0),
        ("core", "cli", 1),
        ("core", "left", 1),
        ("left", "right", 1),
        ("left", "core", 0),
        ("core", "old", 0),
        ("left", "outside", 0),
    ],
)
def test_upward_imports(tmp_path: Path, importer: str, imported: str, expected: int) -> None:
    modules = {f"{name}__m": "" for name in ("cli", "left", "right", "old", "core", "outside")}
    write(tmp_path, **{**modules, f"{importer}__m": f"def f():\n    from PKG.{imported} import m\n"})
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    place = f"src/{PACKAGE}/{importer}/m.py:2: imports {PACKAGE}.{imported}.m"
    assert listed(tmp_path, "upward_imports") == [place] * expected


def test_ignored_imports_of_the_contract(tmp_path: Path) -> None:
    write(tmp_path, core__m="from PKG.cli import m\n", cli__m="")
    for ignored, expected in (("core.m -> made_up_package.cli.*", 0), ("core.* -> made_up_package.left.*", 1)):
        (tmp_path / "pyproject.toml").write_text(f'{CONTRACT}ignore_imports = ["made_up_package.{ignored}"]\n')
        assert measured(tmp_path)["upward_imports"] == expected


def test_parameters_are_counted_without_self(tmp_path: Path) -> None:
    text = "class A:\n    def six(self, a, /, b, *c, d, e, **f): ...\n    def seven(self, a, b, c, d, e, f, g): ...\n"
    write(tmp_path, a=text, cli__b="def seven(a, b, c, d, e, f, g): ...\n")
    assert listed(tmp_path, "many_parameters_outside_cli") == [f"src/{PACKAGE}/a.py:3: seven, 7 parameters"]
    assert measured(tmp_path)["many_parameters"] == 2


def test_single_use_private_functions(tmp_path: Path) -> None:
    text = '''
def _small(x):
    """Return one more."""
    return x + 1

def _large(x):
    x = x + 1
    x = x * 2
    return x

def _wide(x):
    return [
        x,
        x,
    ]

def _twice(x):
    return x

def use(x):
    return _small(x), _large(x), _wide(x), _twice(_twice(x))
'''
    write(tmp_path, a=text)
    assert [place.split()[-1] for place in listed(tmp_path, "single_use_private") or []] == [
        "_small",
        "_large",
        "_wide",
    ]
    assert [p.split()[-1] for p in listed(tmp_path, "small_single_use_private") or []] == ["_small", "_wide"]
    assert listed(tmp_path, "two_line_single_use_private") == [f"src/{PACKAGE}/a.py:2: _small"]
    assert measured(tmp_path)["two_line_functions"] == 3


def test_lengths_of_functions(tmp_path: Path) -> None:
    functions = [f"def f{lines}():\n" + "    x = 1\n" * (lines - 1) for lines in (2, 3, 50, 51)]
    write(tmp_path, a="\n".join(functions))
    numbers = measured(tmp_path)
    assert (numbers["functions"], numbers["function_lines_median"], numbers["function_lines_max"]) == (4, 26.5, 51)
    assert listed(tmp_path, "long_functions") == [f"src/{PACKAGE}/a.py:59: f51, 51 lines"]


def test_output_as_json_table_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--root", str(write(tmp_path, a="")), "--package", PACKAGE]
    assert structure.main([*options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["root_modules"] == 2
    assert structure.main(options) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["root_modules", "2", "limit", "6"]
    assert structure.main([*options, "--list", "root_modules"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"src/{PACKAGE}/__init__.py", f"src/{PACKAGE}/a.py"]
    with pytest.raises(SystemExit):
        structure.main([*options, "--list", "unknown"])
