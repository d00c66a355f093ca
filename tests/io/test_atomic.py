"""Tests of atomic writes: files appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.core.errors import UnusableInput
from assay.io import atomic
from assay.io.atomic import publish, remove_abandoned, write_atomically


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_call(monkeypatch, name: str, after: int) -> None:
    """Let call number ``after`` of ``os.<name>`` fail with a full disk, once."""
    real, calls = getattr(os, name), iter(range(10**6))

    def failing(*args):
        if next(calls) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(atomic.os, name, failing)


@pytest.fixture
def modes_at_creation(monkeypatch) -> dict[str, int]:
    """Return the permissions of each new file before its first byte, by the file's name."""
    modes: dict[str, int] = {}
    real = os.open

    def recorded(path, flags, mode=0o777, **options):
        handle = real(path, flags, mode, **options)
        if flags & os.O_CREAT:
            modes[Path(path).name] = os.fstat(handle).st_mode & 0o777
        return handle

    monkeypatch.setattr(atomic.os, "open", recorded)
    return modes


def public_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def test_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "é\n")
    write_atomically(path, "ö\n")
    assert contents(tmp_path) == {"a.json": "ö\n".encode()}
    assert path.stat().st_mode & 0o777 == public_mode()


def test_missing_parents_are_made_on_request(tmp_path):
    write_atomically(tmp_path / "a" / "b", b"content", parents=True)
    assert contents(tmp_path) == {"a/b": b"content"}


@pytest.mark.parametrize("replaced", [False, True])
def test_private_file_is_private_from_its_creation_on(tmp_path, modes_at_creation, replaced):
    path = tmp_path / "key"
    if replaced:
        path.write_text("public")
    write_atomically(path, "secret", private=True)
    assert list(modes_at_creation.values()) == [0o600]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("new", [False, True])
def test_only_private_files_of_a_folder_are_private(tmp_path, modes_at_creation, new):
    folder = tmp_path / "out" if new else tmp_path
    paths = publish(folder, {"model": b"1", "key": b"2"}, private=["key"])
    assert modes_at_creation == {"model": public_mode(), "key": 0o600}
    assert {name: path.stat().st_mode & 0o777 for name, path in paths.items()} == modes_at_creation


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    path.write_text("old")
    break_call(monkeypatch, call, 0)
    with pytest.raises(UnusableInput, match="No space left on device") as error:
        write_atomically(path, "new")
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == {"a.json": b"old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_unusable_place_gives_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "a", tmp_path / "missing" / "a", tmp_path / "folder"):
        with pytest.raises(UnusableInput, match="could not write"):
            write_atomically(place, "text")
    with pytest.raises(UnusableInput, match="could not write"):
        publish(tmp_path / "file", {"a": b""})


def test_link_and_device_survive(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    write_atomically(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()


FIRST = {"a.txt": b"1", "triggers/b.png": b"2", "triggers/c.png": b"3"}
SECOND = {"a.txt": b"4", "d.txt": b"5"}


def test_folder_keeps_other_files_and_loses_stale_ones(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    publish(tmp_path, FIRST, stale=["triggers/?.png"])
    (tmp_path / "triggers" / "mine.png").write_text("mine")
    publish(tmp_path, SECOND, stale=["triggers/?.png"])
    assert set(contents(tmp_path)) == {"mine.txt", "triggers/mine.png", "a.txt", "d.txt"}


@pytest.mark.parametrize(("call", "after"), [("fsync", 2), ("rename", 0)])
def test_full_disk_leaves_no_new_folder(tmp_path, monkeypatch, call, after):
    break_call(monkeypatch, call, after)
    with pytest.raises(UnusableInput, match="No space left"):
        publish(tmp_path / "out", FIRST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("call", "after"), [("fsync", 1), *[("rename", count) for count in range(5)]])
def test_full_disk_keeps_the_old_folder(tmp_path, monkeypatch, call, after):
    publish(tmp_path, FIRST)
    (tmp_path / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    break_call(monkeypatch, call, after)
    with pytest.raises(UnusableInput, match="No space left"):
        publish(tmp_path, SECOND, stale=["triggers/*.png"])
    assert contents(tmp_path) == before


def test_folder_with_the_name_of_a_file_is_refused(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UnusableInput, match="could not write"):
        publish(tmp_path, FIRST)
    assert contents(tmp_path) == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from assay.io import atomic
atomic.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
write, place = sys.argv[1:]
if write == "file":
    atomic.write_atomically(Path(place) / "a.txt", "new")
else:
    atomic.publish(Path(place), {"a.txt": b"new"})
"""


@pytest.mark.parametrize("write", ["file", "folder"])
def test_remains_of_killed_writer_are_removed(tmp_path, write):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.txt").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, write, str(tmp_path / "deep")])
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "deep").iterdir())) == 2
    assert remove_abandoned(tmp_path) == 1
    assert contents(tmp_path) == {"deep/a.txt": b"old"}
    assert len(list((tmp_path / "deep").iterdir())) == 1


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_temporary_file_in_use_is_not_removed(tmp_path, make):
    with atomic._temporary(tmp_path, make) as path:
        assert remove_abandoned(tmp_path) == 0
        assert path.exists()
    assert list(tmp_path.iterdir()) == []


def test_other_names_are_not_removed(tmp_path):
    for name in (".mine.assay-tmp", "0123456789ab.assay-tmp", ".0123456789ab.assay-tmp.txt"):
        (tmp_path / name).write_text("mine")
    assert remove_abandoned(tmp_path) == 0
    assert remove_abandoned(tmp_path / "missing") == 0
    assert len(list(tmp_path.iterdir())) == 3


def test_file_removed_before_its_lock_is_made_again(tmp_path, monkeypatch):
    real, removed = atomic._open, []

    def remove_first(path):
        if not removed:
            removed.append(path)
            path.unlink()
        return real(path)

    monkeypatch.setattr(atomic, "_open", remove_first)
    write_atomically(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"new"}
    assert removed
