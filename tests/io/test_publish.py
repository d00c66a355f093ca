"""Reports appear whole or not at all."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.core.errors import UnusableInput
from assay.io import publish as files
from assay.report import write, write_text_atomically


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_call(monkeypatch, name: str, after: int) -> None:
    """Let ``os.<name>`` meet a full disk from its call number ``after`` on, once."""
    real, calls = getattr(os, name), iter(range(10**6))

    def failing(*args):
        if next(calls) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(files.os, name, failing)


def test_text_is_written(tmp_path):
    path = tmp_path / "a.json"
    write_text_atomically(path, "é\n")
    write_text_atomically(path, "ö\n")
    assert everything(tmp_path) == {"a.json": "ö\n".encode()}
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    path.write_text("old")
    break_call(monkeypatch, call, 0)
    with pytest.raises(UnusableInput, match="No space left on device") as error:
        write_text_atomically(path, "new")
    assert "\n" not in str(error.value)
    assert everything(tmp_path) == {"a.json": b"old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_unusable_places_give_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "a", tmp_path / "missing" / "a", tmp_path / "folder"):
        with pytest.raises(UnusableInput, match="could not write"):
            write_text_atomically(place, "text")
    with pytest.raises(UnusableInput, match="could not write"):
        files.publish(tmp_path / "file", {"a": b""})


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    write_text_atomically(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()


def test_write_makes_all_reports(make_audit, tmp_path):
    paths = write(make_audit("backdoored"), tmp_path / "new" / "out")
    assert {"report.html", "audit.json", "audit.sarif", "junit.xml"} < set(paths)
    assert all(path.is_file() for path in paths.values())
    assert len(everything(tmp_path)) == len(paths)
    json.loads(paths["audit.json"].read_text())
    image = next(path for name, path in paths.items() if name.endswith(".png"))
    with Image.open(image) as opened:
        assert opened.size == (32, 32)
    with np.load(next(path for name, path in paths.items() if name.endswith(".npz"))) as arrays:
        assert arrays["after"].shape == (6, 3, 32, 32)


def test_write_into_a_folder_in_use(make_audit, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    write(make_audit("backdoored"), tmp_path)
    (tmp_path / "triggers" / "mine.png").write_text("mine")
    write(make_audit("clean"), tmp_path)
    found = set(everything(tmp_path))
    assert found == {"mine.txt", "triggers/mine.png", "report.html", "audit.json", "audit.sarif", "junit.xml"}


@pytest.mark.parametrize(("call", "after"), [("fsync", 2), ("rename", 0)])
def test_a_full_disk_leaves_no_new_folder(make_audit, tmp_path, monkeypatch, call, after):
    break_call(monkeypatch, call, after)
    with pytest.raises(UnusableInput, match="No space left"):
        write(make_audit("backdoored"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("call", "after"), [("fsync", 2), *[("rename", count) for count in range(12)]])
def test_a_full_disk_leaves_an_old_folder_as_it_was(make_audit, tmp_path, monkeypatch, call, after):
    write(make_audit("backdoored"), tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    before = everything(tmp_path)
    break_call(monkeypatch, call, after)
    with pytest.raises(UnusableInput, match="No space left"):
        write(make_audit("clean"), tmp_path)
    assert everything(tmp_path) == before


def test_a_folder_in_the_way_is_refused(make_audit, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UnusableInput, match="could not write"):
        write(make_audit(), tmp_path)
    assert everything(tmp_path) == {}


def test_hostile_names_stay_in_the_folder(hostile, tmp_path):
    paths = write(hostile, tmp_path / "out")
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in paths.values())
