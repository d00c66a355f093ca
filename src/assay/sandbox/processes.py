"""Processes of Linux: descendants, memory, end with the parent.

The package psutil reads the whole process table for each list of descendants, and it cannot tie processes together.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
PROC = Path("/proc")
PARENT_CHECK_SECONDS = 0.5  # without prctl
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sendable_error(error: Exception) -> Exception:
    """Return an error as it is, or its message alone if another process of assay cannot unpickle it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error can hold anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of its container if that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * PAGE if hasattr(os, "sysconf") else sys.maxsize
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            total = min(total, int(Path(path).read_text()))
    return total


def descendants(root: int) -> list[int]:
    """Return the processes below ``root``, in no order; none without /proc."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir(PROC) if PROC.is_dir() else ():
        if entry.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The name, in parentheses, may hold any character.
                state, parent = (PROC / entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents.setdefault(int(parent), []).append(int(entry))
    found, stack = [], [root]
    while stack:
        below = parents.get(stack.pop(), [])
        found += below
        stack += below
    return found


def resident_memory(pid: int, others: Iterable[int] = ()) -> int:
    """Return the bytes of resident memory of a process and its descendants. Pages of files count for the process only.

    Args:
        pid: The main process.
        others: Its descendants.
    """
    return _resident(pid, shared=True) + sum(_resident(other, shared=False) for other in others)


def _resident(pid: int, *, shared: bool) -> int:
    try:
        _, resident, from_files = map(int, (PROC / str(pid) / "statm").read_text().split()[:3])
    except (OSError, ValueError):  # it ended, or there is no /proc
        return 0
    return PAGE * (resident if shared else resident - from_files)


def adopt_orphans() -> None:
    """Make this process the parent of all descendants whose own parent ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """Make this process end at once if its parent ends.

    Args:
        parent: Process id of the parent, as known before the fork.
    """
    if not _prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def kill_descendants(root: int, *, grace: float = 0.0) -> None:
    """End all processes below ``root``, and reap the own children among them.

    Args:
        root: This process, or one of its children.
        grace: Seconds in which they may end by themselves.
    """
    end = time.monotonic() + grace
    while descendants(root):
        _reap()
        if time.monotonic() >= end:
            for pid in descendants(root):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() >= end + 5:  # a process in the middle of a system call cannot be ended
            return
        time.sleep(0.01)
    _reap()


def kill_tree(pid: int) -> None:
    """End a process and everything below it."""
    for each in (pid, *descendants(pid)):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
