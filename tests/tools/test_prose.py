"""Each prose check fails on a made-up repository that breaks its rule, and passes on one that keeps it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import prose

LONG = " ".join(["word"] * 31)
GOOD = '"""Audit a model file."""\n\n\ndef load(path):\n    """Return the model of a file."""\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository without a problem."""
    write(tmp_path, "src/made_up/__init__.py", GOOD)
    write(tmp_path, "README.md", "# Made up\n\nThis tool audits a model file.\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    """Write a file of the made-up repository."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_clean_repository_passes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prose.main(["--root", str(repository), "--check"]) == 0
    assert capsys.readouterr().out == "0 problems\n"


def test_check_exits_with_one(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repository, "docs/a.md", "The twin.\n")
    assert prose.main(["--root", str(repository), "--check"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 problems"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"""Audit a model.\n\nCompared beside a clean one.\n"""\n', 3),
        ("x = 1\n# The twin of it.\n", 2),
        ('LIMIT = 3\n"""Value said by the user."""\n', 2),
    ],
)
def test_banned_words_in_python(repository: Path, text: str, line: int) -> None:
    write(repository, "src/made_up/a.py", text)
    (problem,) = prose.problems(repository)
    assert problem.startswith(f"src/made_up/a.py:{line}: ")
    assert "is banned. Fix: " in problem


@pytest.mark.parametrize(
    "text",
    [
        '"""Read the option ``beside`` of a file."""\n',
        "beside = 'twin'  # code is free\n",
        '"""Follow the paper (Doe: The Evil Twin, 2024, arXiv 2401.00001) closely."""\n',
        '"""Increase the size of a hopeless besideness."""\n',
    ],
)
def test_code_sources_and_parts_of_words_are_free(repository: Path, text: str) -> None:
    write(repository, "src/made_up/a.py", text)
    assert prose.problems(repository) == []


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("docs/a.md", "Fine.\n\nThe *twin* is\nasleep.\n", [3, 4]),
        ("docs/a.md", "# The twin\n\n| twin |\n|---|\n| twin |\n", [1, 3, 5]),
        ("docs/a.md", "```\ntwin\n```\n\nThe [model](twin.md) and `twin`.\n", []),
        ("docs/results.md", "The twin.\n\n| twin |\n|---|\n| twin |\n", [1]),
        ("docs/results/signs.md", "| twin |\n|---|\n| twin |\n", []),
        ("docs/a.md", "<!-- results -->\nThe twin.\n\n| twin |\n|---|\n| twin |\n\n<!-- /results -->\n", [2]),
    ],
)
def test_banned_words_in_markdown(repository: Path, name: str, text: str, lines: list[int]) -> None:
    write(repository, name, text)
    assert [problem.split(": ")[0] for problem in prose.problems(repository)] == [f"{name}:{line}" for line in lines]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/made_up/a.py", f'"""Audit a model.\n\nOne short sentence here. {LONG}.\n"""\n'),
        ("docs/a.md", f"# Title\n\n* {LONG}\n"),
    ],
)
def test_long_sentences(repository: Path, name: str, text: str) -> None:
    write(repository, name, text)
    write(repository, "docs/short.md", "One short sentence again.\n\n" * 3)  # keeps the median low
    assert prose.problems(repository) == [f"{name}:3: sentence of 31 words, limit 30. Fix: split it."]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/made_up/a.py", f'"""Audit a model.\n\n{LONG[:-5]}.\n"""\n'),
        ("src/made_up/a.py", f'"""Audit a model.\n\nDoe, Roe: {LONG}, 2024, arXiv 2401.00001.\n"""\n'),
        ("src/made_up/a.py", f'"""Audit a model.\n\nUses a search ({LONG}, 2024).\n"""\n'),
        ("docs/results.md", f"{LONG}\n"),
        ("docs/a.md", f"```\n{LONG}\n```\n\n| a |\n|---|\n| {LONG} |\n"),
    ],
)
def test_short_sentences_sources_tables_and_generated_pages_pass(repository: Path, name: str, text: str) -> None:
    write(repository, name, text)
    assert prose.problems(repository) == []


def test_docstring_sections_are_separate_sentences(repository: Path) -> None:
    nine = " ".join(["word"] * 9)
    entries = "".join(f"    name_{index}: {nine}\n        and more.\n" for index in range(5))
    write(repository, "src/made_up/a.py", f'"""Audit a model.\n\nArgs:\n{entries}\n- {nine}\n- {nine}\n"""\n')
    found = [s for s in prose.docstring_sentences(repository, "src") if s.path.endswith("a.py")]
    assert [(s.line, s.words) for s in found] == [(4, 11), (6, 11), (8, 11), (10, 11), (12, 11), (15, 9), (16, 9)]


@pytest.mark.parametrize("word", ["What", "How", "Where", "Whether"])
def test_docstrings_that_open_with_a_question_word(repository: Path, word: str) -> None:
    write(repository, "src/made_up/a.py", f'def f():\n    """{word} is done."""\n')
    expected = f'src/made_up/a.py:2: docstring opens with "{word}". Fix: use a verb or a noun.'
    assert prose.problems(repository) == [expected]


def test_too_many_relative_clauses(repository: Path) -> None:
    write(repository, "src/made_up/a.py", '"""Audit a model that carries a trigger."""\n')
    expected = "src: 33.3% of docstring sentences hold a relative clause, limit 20%."
    assert prose.problems(repository) == [expected]
    write(repository, "src/made_up/a.py", '"""Audit a model, so that it can be used."""\n')
    assert prose.problems(repository) == []


def test_high_median_in_the_documents(repository: Path) -> None:
    seventeen = " ".join(["word"] * 17)
    write(repository, "docs/a.md", f"{seventeen}\n\n{seventeen}\n")
    assert prose.problems(repository) == ["README, CONTRIBUTING, docs: median sentence of 17 words, limit 16."]


def test_numbers_as_json(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repository, "src/made_up/a.py", '"""It is a model that waits. What it does, e.g. this, is unknown."""\n')
    assert prose.main(["--root", str(repository), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["documents"]["sentences"] == 1
    assert numbers["docstrings"] == {
        "sentences": 4,
        "median_words": 6,
        "over_30_words": 0,
        "relative_clause": 0.25,
        "opens_with_pronoun": 0.5,
    }


def test_list_of_relative_clauses(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repository, "src/made_up/a.py", '"""Audit a model.\n\nIt is a model\nthat waits."""\n')
    assert prose.main(["--root", str(repository), "--list", "relative"]) == 0
    assert capsys.readouterr().out == "src/made_up/a.py:3: It is a model that waits.\n"


def test_every_banned_word_has_a_replacement() -> None:
    banned = prose.banned_words()
    assert {"stranger", "whoever", "sleeper", "said", "says", "beside", "twin", "told"} <= set(banned)
    assert all(banned.values())
