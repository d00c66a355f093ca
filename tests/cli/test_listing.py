"""``assay list``: the built-in methods."""

from __future__ import annotations

import json

from support.commands import Run


def test_list_has_all_kinds_with_papers_and_techniques(run: Run) -> None:
    result = run("list", "--json", "-")
    assert (result.code, result.err) == (0, "")
    entries = json.loads(result.out)["entries"]
    assert {entry["kind"] for entry in entries} == {"attack", "detector", "stage", "mitigation", "variant", "format"}
    by_name = {entry["name"]: entry for entry in entries}
    assert "1708.06733" in by_name["badnets"]["paper"]
    assert by_name["neural-cleanse"]["technique"].startswith("AML.")
    assert not [entry["name"] for entry in entries if "`" in entry["summary"]]  # no markup on the screen
    assert "badnets" in run("list").err
