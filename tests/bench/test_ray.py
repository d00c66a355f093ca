"""A real Ray cluster of two nodes on the loopback addresses of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.bench.records import Record
from assay.bench.store import Store

TESTS = Path(__file__).parents[1]
RAY = Path(sys.executable).with_name("ray")
SECOND = "127.0.0.2"  # the address of the node that is killed
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_failure_threshold": "2",  # a dead node is noticed after seconds instead of half a minute
    "RAY_health_check_period_ms": "1000",
}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not RAY.exists(), reason="needs Ray")]


def start_node(*flags: str) -> None:
    command = [str(RAY), "start", *flags, "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def processes_of(text: str) -> list[int]:
    """Return the processes with ``text`` in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def place() -> Iterator[str]:
    """Folder for sockets and logs of a cluster. Its processes end with the test."""
    folder = tempfile.mkdtemp(prefix="ray-")  # pytest's folders are too deep for socket names
    yield folder
    kill(processes_of(folder))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(place: str) -> str:
    """Address of a cluster of two nodes with one core each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    head = ("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", f"--temp-dir={place}")
    start_node(*head, "--node-ip-address=127.0.0.1")
    start_node(f"--address={address}", f"--node-ip-address={SECOND}")
    return address


def drive(directory: Path, count: int, *address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(TESTS / "support/toy_jobs.py"), str(directory), str(count), *address]
    return subprocess.Popen(command, env=ENVIRONMENT)


def notes(directory: Path) -> list[str]:
    path = directory / "notes"
    return [line for line in path.read_text().splitlines() if line] if path.exists() else []


def records_in(directory: Path) -> list[Record]:
    store = Store(directory)
    records = list(store.records())
    store.close()
    return records


@pytest.mark.slow
def test_killed_node_loses_running_job_only(cluster: str, place: str, tmp_path: Path) -> None:
    count = 80
    driver = drive(tmp_path, count, cluster)
    until = time.monotonic() + 100
    while len(notes(tmp_path)) < 40 and time.monotonic() < until:
        time.sleep(0.05)
    ours = processes_of(place)  # not those of other clusters on this machine
    victims = [pid for pid in processes_of(f"node_ip_address={SECOND}") if pid in ours]
    assert victims
    kill(victims)
    assert driver.wait(timeout=150) == 0
    records = records_in(tmp_path)
    assert {record.about["number"]: record.result for record in records} == {n: {"square": n * n} for n in range(count)}
    assert Counter(record.state for record in records) == {"done": count}
    assert 40 < len(notes(tmp_path)) <= 2 * count + 2  # one job ran on the killed node, and started twice


SPEC = """
name: small
tasks: {signs: {data: "signs:4", arch: resnet8-cifar, limit: 60}}
seeds: [0]
attacks:
  none: {none: {recipe: {epochs: 1, lr: 0.02}}}
  badnets: {badnets: {ratio: 0.3, recipe: {epochs: 2, lr: 0.02}}}
chains:
  scratch: [attack]
  pruned: [attack, {prune-magnitude: {rate: 0.3}}]
detectors: [depth-scan, random-score]
mitigations: {fine-tuned: [{fine-tune: {recipe: {epochs: 1, lr: 0.001}}}]}
valid: {asr: 0, drop: 1, lift: 0, accuracy: 0}
samples: 20
"""


@pytest.mark.slow
def test_cluster_and_local_run_give_equal_numbers(cluster: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    found = {}
    for place, flags in {"here": ("--workers", "1"), "cluster": ("--ray", cluster)}.items():
        store = tmp_path / place
        command = [str(RAY.with_name("assay")), "bench", "run", str(spec), "--store", str(store), *flags]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
        found[place] = records_in(store)
    here, there = ({record.key: (record.state, measured(record)) for record in found[place]} for place in found)
    assert here == there
    ended = Counter((record.kind, record.state) for record in found["here"])
    assert ended["measure", "done"] == 4
    assert ended["detect", "done"] == 8
    assert len({record.place for record in found["cluster"]}) >= 2


def measured(record: Record) -> dict[str, object]:
    """Return the result without times."""
    return {name: value for name, value in (record.result or {}).items() if name != "repair_seconds"}
