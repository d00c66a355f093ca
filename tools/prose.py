"""Measure and check the prose of this repository: docstrings, comments, README and docs.

Without an option the numbers are printed. ``--check`` prints one line per problem and exits with 1 if there is any.
A sentence has at least four words. The relative clause is found by a word list, so its fraction is an estimate.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from prose_text import (
    GENERATED,
    SOURCE_IN_BRACKETS,
    TABLE_ROW,
    Prose,
    blanked,
    comments,
    docstring_paragraphs,
    docstrings,
    markdown_paragraphs,
    sentences,
)

ROOT = Path(__file__).resolve().parents[1]
BANNED_WORDS = Path(__file__).with_name("banned_words.txt")
MAX_WORDS = 30  # of one sentence
MAX_RELATIVE = 0.20  # fraction of docstring sentences with a relative clause
MAX_MEDIAN = 16  # words of the median sentence in README and docs

# Lower case on purpose: as the first word of a sentence these count as openings instead.
RELATIVE = re.compile(
    r"\b(which|who|whose|whom|whoever|what|whatever|where|wherever|whichever|(?<!so )(?<!such )that)\b"
)
OPENING = re.compile(
    r"\W*(It|Its|What|Where|Of|That|Those|They|Their|He|Who|Whose|Whoever|Whatever|Which|Nobody|Somebody|Nothing)\b"
)
FIRST_LINE = re.compile(r"\W*(What|How|Where|Whether|It|Of|That|Those)\b")
CODE = re.compile(r"(`+).*?\1", re.DOTALL)


def python_files(root: Path, *folders: str) -> list[tuple[Path, str]]:
    """Return the Python files under some folders with their names relative to ``root``."""
    paths = (path for folder in folders for path in sorted((root / folder).rglob("*.py")))
    return [(path, path.relative_to(root).as_posix()) for path in paths]


def documents(root: Path) -> list[tuple[Path, str, bool]]:
    """Return README, CONTRIBUTING and docs; the last item is True for generated result pages."""
    paths = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]
    names = [(path, path.relative_to(root).as_posix()) for path in paths if path.exists()]
    return [(path, name, re.match(r"docs/results(/|[^/]*\.md$)", name) is not None) for path, name in names]


def docstring_sentences(root: Path, *folders: str) -> list[Prose]:
    """Return the sentences of all docstrings under some folders."""
    files = python_files(root, *folders)
    paragraphs = (p for path, name in files for d in docstrings(path, name) for p in docstring_paragraphs(d))
    return [sentence for paragraph in paragraphs for sentence in sentences(paragraph)]


def document_sentences(root: Path) -> list[Prose]:
    """Return the hand-written sentences of README, CONTRIBUTING and docs."""
    texts = (
        (blanked(GENERATED, path.read_text(encoding="utf-8")), name)
        for path, name, generated in documents(root)
        if not generated
    )
    paragraphs = (p for text, name in texts for p in markdown_paragraphs(text, name, skip=("heading", "table")))
    return [sentence for paragraph in paragraphs for sentence in sentences(paragraph)]


def summary(texts: list[Prose]) -> dict[str, float]:
    """Return the number of sentences, their median length and the fractions of conspicuous ones."""
    count = max(len(texts), 1)
    return {
        "sentences": len(texts),
        "median_words": statistics.median([s.words for s in texts]) if texts else 0,
        "over_30_words": sum(s.words > MAX_WORDS for s in texts) / count,
        "relative_clause": sum(RELATIVE.search(s.text) is not None for s in texts) / count,
        "opens_with_pronoun": sum(OPENING.match(s.text) is not None for s in texts) / count,
    }


def measure(root: Path) -> dict[str, dict[str, float]]:
    """Return the numbers of docstrings (``src``) and documents (README, CONTRIBUTING, docs)."""
    return {"docstrings": summary(docstring_sentences(root, "src")), "documents": summary(document_sentences(root))}


def banned_words(path: Path = BANNED_WORDS) -> dict[str, str]:
    """Return the replacement of every banned word."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    pairs = (line.split(" -> ", 1) for line in lines)
    return {form.strip(): replacement for forms, replacement in pairs for form in forms.split(",")}


def banned_word_problems(root: Path, folders: tuple[str, ...]) -> Iterator[str]:
    """Yield a problem for every banned word outside code and citations."""
    banned = banned_words()
    pattern = re.compile(rf"\b({'|'.join(banned)})\b", re.IGNORECASE)
    texts = [comment for path, name in python_files(root, *folders) for comment in comments(path, name)]
    for path, name, generated in documents(root):
        text = path.read_text(encoding="utf-8")
        if generated:
            text = blanked(TABLE_ROW, text)
        texts += markdown_paragraphs(GENERATED.sub(lambda part: blanked(TABLE_ROW, part[0]), text), name)
    for paragraph in texts:
        plain = blanked(SOURCE_IN_BRACKETS, blanked(CODE, paragraph.text))
        for match in pattern.finditer(plain):
            word = Prose(paragraph.path, paragraph.line + plain.count("\n", 0, match.start()), match[0])
            yield word.problem(f'"{match[0]}" is banned. Fix: {banned[match[0].lower()]}.')


def problems(root: Path, folders: tuple[str, ...] = ("src", "tools")) -> list[str]:
    """Return one line for each breach of the prose rules."""
    found = list(banned_word_problems(root, folders))
    for sentence in docstring_sentences(root, *folders) + document_sentences(root):
        if sentence.words > MAX_WORDS and not sentence.is_citation:
            found.append(sentence.problem(f"sentence of {sentence.words} words, limit {MAX_WORDS}. Fix: split it."))
    for path, name in python_files(root, *folders):
        for docstring in docstrings(path, name):
            opening = FIRST_LINE.match(docstring.text)
            if opening:
                found.append(docstring.problem(f'docstring opens with "{opening[1]}". Fix: use a verb or a noun.'))
    numbers = measure(root)
    relative, median = numbers["docstrings"]["relative_clause"], numbers["documents"]["median_words"]
    if relative > MAX_RELATIVE:
        found.append(f"src: {relative:.1%} of docstring sentences hold a relative clause, limit {MAX_RELATIVE:.0%}.")
    if median > MAX_MEDIAN:
        found.append(f"README, CONTRIBUTING, docs: median sentence of {median:g} words, limit {MAX_MEDIAN}.")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=ROOT, help="repository to measure")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the numbers as JSON")
    output.add_argument("--check", action="store_true", help="print one line per problem; exit code 1 if there is any")
    output.add_argument("--list", choices=["relative", "opening"], help="print the docstring sentences of one kind")
    options = parser.parse_args(arguments)
    if options.check:
        found = problems(options.root)
        print("\n".join([*found, f"{len(found)} problems"]))
        return 1 if found else 0
    if options.list:
        pattern = {"relative": RELATIVE.search, "opening": OPENING.match}[options.list]
        for sentence in docstring_sentences(options.root, "src"):
            if pattern(sentence.text):
                print(sentence.problem(" ".join(sentence.text.split())))
        return 0
    numbers = measure(options.root)
    if options.json:
        print(json.dumps(numbers, indent=2))
        return 0
    for name in numbers["docstrings"]:
        values = (f"{row[name]:>12.1%}" if 0 < row[name] < 1 else f"{row[name]:>12g}" for row in numbers.values())
        print(f"{name:20}", *values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
