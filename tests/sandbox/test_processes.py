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
