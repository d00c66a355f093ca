"""YAML as a spec may use it: plain values, each key once, nothing that is written once and meant often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

from assay.core.errors import UnusableInput

MOST_BYTES = 2**20


class _Strict(yaml.SafeLoader):
    """Refuses what YAML takes silently: a key that comes twice (the last would win), and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: no aliases (*): write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        counts = Counter(str(key.value) for key, _ in node.value)
        for key, _ in reversed(node.value):
            if counts[str(key.value)] > 1:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {str(key.value)!r} comes twice")
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The document in ``text``. Raises UnusableInput where it is not valid, or uses what is not taken."""
    try:
        return yaml.load(text, _Strict)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UnusableInput(f"is not valid YAML: {' '.join(str(error).split())}") from None
