"""Bounds on a ``tokenizer.json``: its rules must not multiply a text, or run without end.

A normalizer can replace each letter by a hundred, several times in a row. The library ``tokenizers`` has no limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from assay.core.errors import UnusableInput
from assay.io.files import parse_json

MAX_GROWTH = 64  # of the length of a text, by all replacements together
MAX_PARTS = 16  # of a template around a text, and of one of its special tokens
NAME = "tokenizer.json"
# Repeated groups with a repetition inside, and references to groups: the time can grow exponentially with the text.
SLOW_REGEX = re.compile(r"\([^()]*[*+][^()]*\)[*+]|\\[1-9]|\\k<")


def refuse_unbounded_tokenizer(content: str) -> None:
    """Raise UnusableInput for a tokenizer whose rules multiply a text, or whose patterns can run without end.

    Args:
        content: Content of a ``tokenizer.json``.
    """
    settings = parse_json(content, NAME)
    if not isinstance(settings, dict):
        raise UnusableInput(f"{NAME}: expected a JSON object, got a {type(settings).__name__}")
    for part in ("normalizer", "decoder"):
        growth = 1.0
        for rule in _rules(settings.get(part)):
            growth *= _growth(rule)
        if growth > MAX_GROWTH:
            raise UnusableInput(
                f"{NAME}: expected a {part} that lengthens texts at most {MAX_GROWTH} times, got one of "
                f"{min(growth, 1e9):,.0f} times. Fix: use another tokenizer."
            )
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        for rule in _rules(settings.get(part)):
            pattern = rule.get("pattern")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else None
            if isinstance(regex, str) and SLOW_REGEX.search(regex):
                raise UnusableInput(
                    f"{NAME}: expected patterns of bounded time, got {regex[:40]!r}. Fix: use another tokenizer."
                )
    _refuse_long_template(settings.get("post_processor"))


def _rules(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the rules of a normalizer, pre-tokenizer or decoder; a sequence holds several."""
    if isinstance(value, list):
        for part in value:
            yield from _rules(part)
    elif isinstance(value, dict):
        yield value
        for part in value.values():
            if isinstance(part, list):
                yield from _rules(part)


def _growth(rule: dict[str, Any]) -> float:
    """Return the largest factor by which a replacement lengthens a text."""
    content, pattern = rule.get("content"), rule.get("pattern")
    if not isinstance(content, str) or not isinstance(pattern, dict):
        return 1.0
    found = pattern.get("String")
    if isinstance(found, str):
        return max(1.0, len(content) / len(found)) if found else 1.0 + len(content)
    return 1.0 + len(content) if len(content) > 1 else 1.0  # a regular expression can match an empty text


def _refuse_long_template(value: Any) -> None:
    """Raise UnusableInput if a template repeats the text, or adds many tokens to it."""
    for rule in _rules(value):
        single = rule.get("single")
        parts = single if isinstance(single, list) else []
        texts = sum(isinstance(part, dict) and "Sequence" in part for part in parts)
        tokens = rule.get("special_tokens")
        longest = max(
            (len(token["ids"]) for token in (tokens.values() if isinstance(tokens, dict) else ())
             if isinstance(token, dict) and isinstance(token.get("ids"), list)),
            default=0,
        )  # fmt: skip
        if texts > 1 or len(parts) > MAX_PARTS or longest > MAX_PARTS:
            raise UnusableInput(
                f"{NAME}: expected a template with one text and at most {MAX_PARTS} tokens around it, got {texts} "
                f"texts and {max(len(parts), longest)} tokens. Fix: use another tokenizer."
            )
