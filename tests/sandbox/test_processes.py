"""Tests of the settings of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALLOCATE = """
import resource, sys
import torch
from assay.sandbox.processes import keep_freed_memory
assert not "{kept}" or keep_freed_memory()
def faults():
    for _ in range(20):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
print(faults() - before)
"""


def page_faults(*, kept: bool) -> int:
    """Return the page faults of 20 allocations of 64 MiB in a new process."""
    code = ALLOCATE.format(kept="kept" if kept else "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    assert page_faults(kept=True) < 1000 < page_faults(kept=False)


RELEASE = """
import os
import torch
from assay.sandbox.processes import keep_freed_memory, release_freed_memory, resident_memory
assert keep_freed_memory()
large = [torch.ones(2**22) for _ in range(20)]
last = torch.ones(2**22)  # memory below it cannot be given back by a lower end of the heap
large.clear()
kept = resident_memory(os.getpid())
release_freed_memory()
print(kept - resident_memory(os.getpid()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_given_back_on_request() -> None:
    done = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 250 * 2**20  # of 320 MiB
