"""Read prose with line numbers from Python and Markdown files."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

MIN_WORDS = 4  # shorter pieces are labels, not sentences
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bal\.)(?<!\bcf\.)(?<!\bvs\.)[\"')*]*\s+")
SOURCE = re.compile(r"\b(arXiv|RFC|doi|DOI)\b|(, |[A-Z]{2} )(19|20)\d\d\b")
SOURCE_IN_BRACKETS = re.compile(r"\([^()]*\b(19|20)\d\d\b[^()]*\)")
GENERATED = re.compile(r"<!-- (?P<name>[\w-]+) -->.*?<!-- /(?P=name) -->", re.DOTALL)
TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
SECTION = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises|Examples?|Notes?|References?):$")
ENTRY = re.compile(r"(\*{0,2}\w[\w.]*( \([^)]*\))?: |([-*+]|\d+\.) )")


@dataclass(frozen=True)
class Prose:
    """A piece of text in a file: a sentence, a paragraph or a comment."""

    path: str
    line: int
    text: str

    @property
    def words(self) -> int:
        """Number of words, without sources in brackets."""
        return len(SOURCE_IN_BRACKETS.sub("", self.text).split())

    @property
    def is_citation(self) -> bool:
        """True if the sentence itself names authors and title of a source."""
        return SOURCE.search(SOURCE_IN_BRACKETS.sub("", self.text)) is not None

    def problem(self, message: str) -> str:
        """Return one line of output."""
        return f"{self.path}:{self.line}: {message}"


def sentences(paragraph: Prose) -> list[Prose]:
    """Split a paragraph into sentences. A line number is that of the sentence's first word."""
    found, start = [], 0
    ends = [match.end() for match in SENTENCE_END.finditer(paragraph.text)]
    for end in [*ends, len(paragraph.text)]:
        text = paragraph.text[start:end].strip()
        if len(text.split()) >= MIN_WORDS:
            found.append(Prose(paragraph.path, paragraph.line + paragraph.text.count("\n", 0, start), text))
        start = end
    return found


def docstrings(path: Path, name: str) -> Iterator[Prose]:
    """Yield the docstrings of modules, classes and functions in a Python file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text and text.strip():
                blank = len(text) - len(text.lstrip())
                yield Prose(name, node.body[0].lineno + text.count("\n", 0, blank), text.strip())


def docstring_paragraphs(docstring: Prose) -> list[Prose]:
    """Split a docstring at blank lines, list items and entries of Google-style sections."""
    found: list[tuple[int, list[str]]] = []
    open_paragraph = in_section = False
    for number, raw in enumerate(docstring.text.splitlines()):
        line = raw.strip()
        if SECTION.match(line):
            open_paragraph, in_section = False, True
            continue
        entry = ENTRY.match(line)
        if entry and not (in_section or entry[3]):
            entry = None
        if not line or line.startswith(">>>"):
            open_paragraph = False
        elif entry or not open_paragraph:
            found.append((number, [line[entry.end() :] if entry else line]))
            open_paragraph = True
        else:
            found[-1][1].append(line)
    return [Prose(docstring.path, docstring.line + number, "\n".join(lines)) for number, lines in found]


def comments(path: Path, name: str) -> Iterator[Prose]:
    """Yield the comments of a Python file, and string literals used as comments."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(name, token.start[0], token.string.lstrip("# "))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Prose(name, node.lineno, node.value.value)


def markdown_paragraphs(text: str, name: str, skip: tuple[str, ...] = ()) -> Iterator[Prose]:
    """Yield paragraphs, list items, headings and table cells of a Markdown text, without code blocks.

    Args:
        text: The Markdown text.
        name: Name of its file, for messages.
        skip: Kinds of block to leave out: ``heading``, ``table``.
    """
    depth = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type.removesuffix("_open").removesuffix("_close") in skip:
            depth += token.nesting
        elif token.type == "inline" and not depth and token.map:
            yield Prose(name, token.map[0] + 1, "".join(map(_inline_text, token.children or [])))


def _inline_text(token: Token) -> str:
    if token.type == "code_inline":
        return f"`{token.content}`"
    return "\n" if token.type.endswith("break") else token.content if token.type == "text" else ""


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return a text without the matches of a pattern; line numbers stay."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
