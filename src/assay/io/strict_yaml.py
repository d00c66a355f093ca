"""Strict YAML: scalars, lists and maps; no duplicate keys, no aliases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

from assay.core.errors import UnusableInput

# Largest size of a document, in bytes.
MAX_YAML_BYTES = 2**20


class _StrictLoader(yaml.SafeLoader):
    """Loader without duplicate keys and aliases; plain YAML keeps the last of two equal keys."""

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
    """Return the document in ``text``; raise UnusableInput for invalid YAML, duplicate keys and aliases."""
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UnusableInput(f"is not valid YAML: {' '.join(str(error).split())}") from None
