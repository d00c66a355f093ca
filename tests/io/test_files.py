"""JSON that readers could read in two ways, and links of the hub's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.core.errors import UnusableInput
from assay.io.files import any_json, check_binary_file, inside, parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "finite numbers, got NaN"),
        ("[-Infinity]", "finite numbers"),
        ("1e999", "finite numbers"),
        ("[" * 101 + "]" * 101, "nests deeper than 100"),
        ("[" * 100_000, "nests deeper"),
        ("9" * 41, "at most 40 digits"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('"\\ud800"', "half of a character"),
        ("", "not valid JSON"),
    ],
)
def test_ambiguous_json_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UnusableInput, match=message) as caught:
        parse_json(text, "f.json")
    assert "\n" not in str(caught.value)


def test_ordinary_json_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, "\\ud83d\\ude00", null, 1000000000000000019884624838656]}', "f")["a"][1] == 2.5


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert any_json(tmp_path / "f.json") == [1]


def cache(root: Path) -> Path:
    """Return a snapshot of the hub's cache with a link at two depths."""
    snapshot = root / "models--owner--name" / "snapshots" / "rev"
    (snapshot / "onnx").mkdir(parents=True)
    blobs = root / "models--owner--name" / "blobs"
    blobs.mkdir()
    (blobs / "abc").write_bytes(b"\x01content")
    (snapshot / "m.bin").symlink_to("../../blobs/abc")
    (snapshot / "onnx" / "m.bin").symlink_to("../../../blobs/abc")
    return snapshot


def test_links_into_the_cache_are_allowed_at_any_depth(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    assert inside(snapshot, "m.bin").read_bytes() == b"\x01content"
    assert inside(snapshot / "onnx", "m.bin").read_bytes() == b"\x01content"
    assert inside(snapshot, "onnx/m.bin").is_file()


def test_links_to_other_places_are_refused(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    (tmp_path / "secret").write_bytes(b"x")
    (snapshot / "onnx" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "m.bin").symlink_to(snapshot.parent.parent / "blobs" / "abc")
    for folder, name in ((snapshot / "onnx", "out"), (tmp_path / "plain", "m.bin")):
        with pytest.raises(UnusableInput, match="leads out of the model's folder"):
            inside(folder, name)


def test_link_to_a_missing_blob_is_named(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    (snapshot / "gone").symlink_to("../../blobs/none")
    with pytest.raises(UnusableInput, match="link to the missing file"):
        inside(snapshot, "gone")


def test_text_in_place_of_binary_data_is_shown(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("Entry not found")
    with pytest.raises(UnusableInput, match="got the text 'Entry not found'"):
        check_binary_file(tmp_path / "m.onnx")
