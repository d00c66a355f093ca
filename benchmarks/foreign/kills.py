"""Bench runs and batches of audits, killed at random moments and repeated until they finish.

    python benchmarks/run.py kills [KILLS]   # of each command -> benchmarks/results/kills.json

A server process imports everything and runs no operation of torch. It forks one process for each start of a command.
New interpreters of the command are forks too, without the imports that would take most of the time. The server sends
SIGKILL to one of four targets: all processes of the command, its supervisor, its main process, or a worker. Then it
starts the same command at once. After each finished command it compares records and files with an uninterrupted run.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import importlib
import json
import multiprocessing.forkserver
import multiprocessing.process
import multiprocessing.resource_tracker
import multiprocessing.spawn
import multiprocessing.util
import os
import pkgutil
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pyarrow.parquet  # noqa: F401 (before the forks)
import rich.progress  # noqa: F401
import yaml
from lib import commands
from lib.results import load_result, save_result

import assay.batch
import assay.bench
import assay.cli
import assay.report
from assay.batch import audits
from assay.bench import worker
from assay.bench.cells import Cell
from assay.bench.records import FINAL, RECORDS, open_existing
from assay.cli import main as run_assay
from assay.sandbox import phases, processes
from assay.sandbox.limits import Limits
from assay.stages.cache import Cache

SPEC: dict[str, Any] = {
    "name": "kills",
    "tasks": {"noise": {"arch": "resnet8-cifar"}},
    "seeds": [0],
    "attacks": {
        "none": {"none": {"recipe": {"epochs": 1, "batch_size": 32}}},
        "corner": {"badnets": {"recipe": {"epochs": 1, "batch_size": 32}}},
    },
    "chains": {"scratch": ["attack"], "pruned": ["attack", {"prune-magnitude": {"rate": 0.5}}]},
    "detectors": ["random-score"],
    "mitigations": {"pruned": [{"prune-magnitude": {"rate": 0.5}}]},
    "valid": {"asr": 0.0, "drop": 1.0, "lift": 0.0, "accuracy": 0.0},
    "samples": 12,
}
CLASSES = 3
MODELS = 6  # of a batch
AUDIT = ("--data", "few.npz", "--variants", "full", "--detectors", "channel-lipschitz", "--mean", "0", "--std", "1")
TARGETS = ("group", "supervisor", "main", "worker")
WEIGHTS = (6, 1, 1, 2)  # of the targets
SHORT = 0.4  # fraction of delays from the first quarter of the run: start and take-over
END_SECONDS = 10.0  # in which the processes of a killed command end by themselves
RUN_SECONDS = 300.0  # an uninterrupted run takes at most this long
VARIABLE = ("seconds", "stages_run", "place", "started", "date", "created", "command")  # parts of names of fields
NOTES = "KILLS_NOTES"  # environment variable: file with a line for each start of a job
START = "KILLS_START"  # environment variable: number of the start; an orphan may begin a job after the next start
QUICK = "KILLS_QUICK"  # environment variable: finished store for quick jobs; empty for real jobs
QUICK_SECONDS = (0.01, 0.1)  # shortest and longest quick job
QUICK_BYTES = 300_000  # about as many as a model of a real cell
REAL = 0.04  # fraction of the kills of real jobs; the others are of quick ones


@dataclass(frozen=True)
class Command:
    """A command with its inputs."""

    name: str
    words: tuple[str, ...]  # of the command line; the output folder follows
    folder: str  # name of the output folder
    again: tuple[str, ...] = ()  # further words, after jobs failed because their workers were killed
    quick: str = ""  # finished store for quick jobs


@dataclass
class Tally:
    """Counts over all stores of one command."""

    stores: int = 0
    starts: int = 0
    kills: Counter[str] = field(default_factory=Counter)  # by target
    moments: Counter[str] = field(default_factory=Counter)  # kills by the number of recorded jobs
    records: int = 0
    redone: int = 0  # jobs that started again after a kill before their record
    retried: int = 0  # jobs that failed because their workers were killed, and ran again
    lost: int = 0
    doubled: int = 0
    different: int = 0
    left_files: int = 0
    orphans: int = 0
    damaged: int = 0
    sockets_left: int = 0  # of servers of processes, in the temporary folder of the system
    end_seconds: float = 0.0  # longest time from a kill to the end of the last process
    problems: list[str] = field(default_factory=list)


# Processes


def import_commands() -> None:
    """Import the modules that the commands import when they run."""
    for package in (assay.batch, assay.bench, assay.cli, assay.report):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    with open(os.devnull, "w") as null, redirect_stdout(null):
        run_assay(["audit-many", "--help"])
    if threading.active_count() > 1:
        raise RuntimeError("expected one thread before the first fork")


def fork_interpreter(path: bytes, words: Sequence[bytes], passed: Sequence[int]) -> int:
    """Fork in place of a new interpreter with ``-c CODE``, and return the process.

    Args:
        path: The interpreter; unused.
        words: Its command line.
        passed: Open files that the process keeps.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        texts = [os.fsdecode(word) for word in words]
        position = texts.index("-c")
        sys.argv = ["-c", *texts[position + 2 :]]
        _forget_parent(set(passed))
        exec(texts[position + 1], {"__name__": "__main__"})
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _forget_parent(passed: set[int]) -> None:
    """Close files and reset state that a new interpreter would not have."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in passed:
            with suppress(OSError):
                os.close(int(name))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    phases.LINK.pipe, phases.LINK.limits, phases.LINK.phase = None, Limits(), {}
    multiprocessing.process._children.clear()
    multiprocessing.util._finalizer_registry.clear()
    multiprocessing.resource_tracker._resource_tracker.__init__()
    multiprocessing.forkserver._forkserver.__init__()


def start(command: Command, extra: Sequence[str], place: Path) -> int:
    """Start a command in a group of processes of its own, and return its first process.

    Args:
        command: The command.
        extra: Further words of its command line.
        place: Folder for its output and notes; the inputs are two folders above.
    """
    pid = os.fork()
    if pid:
        with suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(place.parent.parent)
        log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ[NOTES], os.environ["TMPDIR"] = str(place / "notes"), str(place / "tmp")
        tempfile.tempdir = None
        os.environ[QUICK] = command.quick
        sys.argv = ["assay", *command.words, str(place / command.folder), *extra]
        code = run_assay()
        multiprocessing.util._exit_function()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_end(pid: int, seconds: float) -> int | None:
    """Return the exit code of a command; None if it runs on."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))


def kill(pid: int, target: str, chance: random.Random) -> bool:
    """Kill the target of a command. Return False if there is no such process.

    Args:
        pid: First process of the command, its supervisor.
        target: One of ``TARGETS``.
        chance: Chooses the worker.
    """
    if target in ("group", "supervisor"):
        (os.killpg if target == "group" else os.kill)(pid, signal.SIGKILL)
        return True
    main = [each for each in processes.descendants(pid) if _parent(each) == pid]
    found = main[:1] if target == "main" else sorted(processes.descendants(main[0])) if main else []
    if not found:
        return False
    try:
        os.kill(chance.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return -1


def wait_for_orphans() -> tuple[float, int]:
    """Wait until no descendant runs. Return the seconds, and the number of those that had to be killed."""
    begin = time.monotonic()
    while (left := processes.descendants(os.getpid())) and time.monotonic() - begin < END_SECONDS:
        processes._reap()
        time.sleep(0.02)
    seconds = time.monotonic() - begin
    processes.kill_descendants(os.getpid())
    return seconds, len(left)


# Jobs


@dataclass(frozen=True)
class FinishedAudit:
    """An audit of an uninterrupted run, in place of a new one."""

    summary: dict[str, Any]
    files: dict[str, bytes]

    @classmethod
    def read(cls, store: Path, key: str) -> FinishedAudit:
        """Read the audit with a key from a finished batch."""
        record = open_existing(store).record(key)
        assert record is not None
        assert record.result is not None
        files = {path.name: path.read_bytes() for path in (store / audits.REPORTS / key).iterdir()}
        return cls({name: value for name, value in record.result.items() if name != "files"}, files)


def quick_cell(cell: Cell, cache: Cache) -> dict[str, Any]:
    """Wait, and write two files as a real cell does. The result depends on the cell alone."""
    chance = random.Random(cell.key)
    time.sleep(chance.uniform(*QUICK_SECONDS))
    cache.store.put(f"{cell.key}.bin", chance.randbytes(QUICK_BYTES))
    return cache.json_once(cell.key, lambda: {"value": chance.random(), "needs": [need.key for need in cell.needs()]})


def quick_audit(job: audits.AuditJob) -> FinishedAudit:
    """Wait, and return the audit of an uninterrupted run."""
    time.sleep(random.Random(job.key).uniform(*QUICK_SECONDS))
    return FinishedAudit.read(Path(os.environ[QUICK]), job.key)


def replace_jobs() -> None:
    """Make each job write a line at its start, and make jobs quick where the environment says so."""

    def noted(function: Callable[..., Any], quick: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(job: Any, *rest: Any) -> Any:
            handle = os.open(os.environ[NOTES], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(handle, f"{os.environ[START]} {job.key}\n".encode())
            os.close(handle)
            return (quick if os.environ[QUICK] else function)(job, *rest)

        return run

    def unless_finished(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        return lambda audit: getattr(audit, name) if isinstance(audit, FinishedAudit) else function(audit)

    computations: Any = worker._COMPUTATIONS
    for kind, function in list(computations.items()):
        computations[kind] = noted(function, quick_cell)
    audits._audit = noted(audits._audit, quick_audit)
    audits.summary = unless_finished(audits.summary, "summary")
    audits.report_files = unless_finished(audits.report_files, "files")


def notes(place: Path) -> list[list[str]]:
    """Return the number of the start and the key of each started job."""
    path = place / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# Records and files


def final_states(store: Path) -> dict[str, str]:
    """Return the states of the final records by key, read from a copy so that the store stays as the kill left it."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(store / f"{RECORDS}{suffix}", Path(folder) / f"{RECORDS}{suffix}")
        if not (Path(folder) / RECORDS).exists():
            return {}
        db = sqlite3.connect(Path(folder) / RECORDS)
        try:
            return dict(db.execute(f"SELECT key, state FROM cells WHERE state IN {FINAL}"))
        except sqlite3.Error:  # the tables are not there yet, or the copy was made in the middle of a write
            return {}
        finally:
            db.close()


def stable(value: Any) -> Any:
    """Return a JSON value without the fields that differ between two uninterrupted runs."""
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if not any(part in name for part in VARIABLE)}
        if isinstance(kept.get("inputs"), int):  # of the deployment check: as many as its time allows
            del kept["inputs"]
        return {name: stable(item) for name, item in kept.items()}
    if isinstance(value, list):
        return [stable(item) for item in value]
    return value


@dataclass(frozen=True)
class Content:
    """Records and files of a finished store."""

    records: dict[str, Any]  # by key
    files: dict[str, Any]  # stable content by relative path
    integrity: str


def content_of(store: Path) -> Content:
    """Read a finished store."""
    db = sqlite3.connect(store / RECORDS)
    integrity = str(db.execute("PRAGMA integrity_check").fetchone()[0])
    rows = db.execute("SELECT key, kind, about, state, result, error FROM cells").fetchall()
    db.close()
    records = {}
    for key, kind, about, state, result, error in rows:
        about = {name: value for name, value in json.loads(about).items() if name != "model"}
        records[key] = [kind, about, state, stable(json.loads(result or "null")), error]
    files = {}
    for path in sorted(store.rglob("*")):
        if path.is_file() and not path.name.startswith(RECORDS):
            files[str(path.relative_to(store))] = _stable_content(path)
        elif path.is_dir() and path.name.startswith("."):
            files[str(path.relative_to(store))] = "folder"
    return Content(records, files, integrity)


def _stable_content(path: Path) -> Any:
    if path.name == "statement.json":  # it has the digests of the files with times
        statement = json.loads(path.read_text())
        return [statement["subject"], statement["predicateType"], sorted(statement["predicate"])]
    if path.suffix == ".xml":
        return [[each.tag, each.get("name")] for each in ElementTree.parse(path).iter()]
    if path.suffix == ".json" or path.suffix == ".sarif":
        return stable(json.loads(path.read_text()))
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return sorted(map(repr, map(stable, csv.DictReader(file))))
    if path.suffix == ".html":
        text = path.read_text()
        return ["whole" if text.rstrip().endswith("</html>") else "cut off"]
    content = path.read_bytes()
    if path.suffix == ".safetensors":  # the order of the metadata is random
        end = 8 + int.from_bytes(content[:8], "little")
        return [json.loads(content[8:end]), hashlib.sha256(content[end:]).hexdigest()]
    return hashlib.sha256(content).hexdigest()


def compare(found: Content, expected: Content, tally: Tally) -> list[str]:
    """Count the differences between a store and that of an uninterrupted run, and return them in words."""
    lost = expected.records.keys() - found.records.keys()
    lost |= {key for key, record in found.records.items() if record[2] not in FINAL}
    doubled = found.records.keys() - expected.records.keys()
    same = found.records.keys() & expected.records.keys() - lost
    different = {key for key in same if found.records[key] != expected.records[key]}
    files = {name for name in expected.files if found.files.get(name) != expected.files[name]}
    left = found.files.keys() - expected.files.keys()
    tally.records += len(found.records)
    tally.lost += len(lost)
    tally.doubled += len(doubled)
    tally.different += len(different) + len(files)
    tally.left_files += len(left)
    tally.damaged += found.integrity != "ok"
    named = {"lost": lost, "more records": doubled, "different": different, "different file": files, "left": left}
    problems = [f"{what}: {name}" for what, names in named.items() for name in sorted(names)]
    return problems + ([f"integrity: {found.integrity}"] if found.integrity != "ok" else [])


# Runs


def run_to_end(command: Command, place: Path) -> tuple[float, int, Content]:
    """Run a command without a kill. Return its seconds, exit code and content."""
    begin = time.monotonic()
    os.environ[START] = "0"
    pid = start(command, (), place)
    code = wait_for_end(pid, RUN_SECONDS)
    if code is None or code not in (0, 3):
        raise RuntimeError(f"{command.name}: exit code {code}: {(place / 'log').read_text()[-2000:]}")
    seconds = time.monotonic() - begin
    wait_for_orphans()
    return seconds, code, content_of(place / command.folder)


@dataclass
class Trial:
    """A store that lives until its command has finished in spite of the kills."""

    command: Command
    place: Path
    seconds: float  # of an uninterrupted run
    code: int  # of an uninterrupted run
    chance: random.Random
    tally: Tally

    def run(self, expected: Content, most: int) -> None:
        """Start and kill the command until it finishes, and check the store.

        Args:
            expected: Content after an uninterrupted run.
            most: Number of kills after which the command runs to its end.
        """
        kills, extra = 0, tuple[str, ...]()
        while True:
            killed, code = self._start(extra, may_kill=kills < most)
            kills += killed
            if code is None:
                continue
            states = final_states(self.place / self.command.folder)
            failed = [key for key, state in states.items() if state == "failed"]
            if code == self.code and not failed:
                break
            if code not in (self.code, 2, -signal.SIGKILL):
                self.tally.problems.append(f"{self.place.name}: exit code {code}")
            self.tally.retried += len(failed)
            extra = self.command.again
        self._check(expected)

    def _start(self, extra: Sequence[str], *, may_kill: bool) -> tuple[int, int | None]:
        """Start the command once. Return the number of kills, and the exit code unless all was killed."""
        store = self.place / self.command.folder
        final, kills, workers_killed = final_states(store), 0, False
        os.environ[START] = str(self.tally.starts)
        pid = start(self.command, extra, self.place)
        code = None
        while code is None:
            code = wait_for_end(pid, self._delay() if may_kill else RUN_SECONDS)
            if code is not None:
                break
            if not may_kill:
                self.tally.problems.append(f"{self.place.name}: no end in {RUN_SECONDS:.0f} s")
                os.killpg(pid, signal.SIGKILL)
                continue
            target = self.chance.choices(TARGETS, WEIGHTS)[0]
            done = len(final_states(store))
            if not kill(pid, target, self.chance):
                continue
            kills += 1
            self.tally.kills[target] += 1
            self.tally.moments[self._moment(done)] += 1
            workers_killed |= target == "worker"
            if target in ("group", "supervisor"):
                code = wait_for_end(pid, END_SECONDS)
                break
        started = Counter(key for number, key in notes(self.place) if number == os.environ[START])
        again = {key for key in started if final.get(key, "failed") != "failed"}
        again |= {key for key, count in started.items() if count > 1 and not workers_killed}
        for key in sorted(again):
            self.tally.doubled += 1
            self.tally.problems.append(f"{self.place.name}: ran again: {key}")
        self.tally.starts += 1
        return kills, None if code == -signal.SIGKILL else code

    def _moment(self, done: int) -> str:
        if not done:
            return "before the first record"
        return "between records" if done < len(self._expected_keys) else "after the last record"

    _expected_keys: frozenset[str] = frozenset()

    def _delay(self) -> float:
        longest = self.seconds / 4 if self.chance.random() < SHORT else self.seconds
        return self.chance.random() * longest

    def _check(self, expected: Content) -> None:
        seconds, left = wait_for_orphans()
        self.tally.stores += 1
        self.tally.end_seconds = max(self.tally.end_seconds, seconds)
        self.tally.orphans += left
        found = content_of(self.place / self.command.folder)
        started = Counter(key for _, key in notes(self.place))
        self.tally.redone += sum(count - 1 for count in started.values())
        self.tally.sockets_left += sum(1 for _ in (self.place / "tmp").glob("pymp-*"))
        problems = compare(found, expected, self.tally)
        problems += [f"never started: {key}" for key in expected.records.keys() - started.keys()]
        self.tally.problems += [f"{self.place.name}: {problem}" for problem in problems]


def make_place(folder: Path, name: str) -> Path:
    """Make the working folder of one store."""
    place = folder / name
    (place / "tmp").mkdir(parents=True)
    return place


def measure(command: Command, folder: Path, kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """Kill a command the given number of times, and yield the counts so far after each store.

    Args:
        command: The command.
        folder: Empty folder.
        kills: Number of kills.
        seed: Seed of moments and targets.
    """
    before = sum(os.times()[2:4])
    first = run_to_end(command, make_place(folder, "first"))
    seconds, code, expected = run_to_end(command, make_place(folder, "second"))
    tally, chance = Tally(), random.Random(seed)
    if differences := compare(first[2], expected, Tally()):
        raise RuntimeError(f"two uninterrupted runs differ: {differences[:10]}")
    processor = (sum(os.times()[2:4]) - before) / 2
    print(
        f"{command.name}: {len(expected.records)} jobs, {seconds:.2f} s uninterrupted, {processor:.2f} of processor",
        flush=True,
    )
    begin = time.monotonic()
    while (left := kills - sum(tally.kills.values())) > 0:
        place = make_place(folder, f"store-{tally.stores}")
        trial = Trial(command, place, seconds, code, chance, tally)
        trial._expected_keys = frozenset(expected.records)
        before = len(tally.problems)
        trial.run(expected, min(left, chance.randint(5, 20)))
        if len(tally.problems) == before:
            shutil.rmtree(place)
        passed = time.monotonic() - begin
        print(f"{tally.stores} stores, {sum(tally.kills.values())} kills, {passed:.0f} s", flush=True)
        print(*tally.problems[before:], sep="\n", end="\n" if len(tally.problems) > before else "", flush=True)
        document = {**vars(tally), "kills": dict(tally.kills), "moments": dict(tally.moments)}
        yield {"jobs_a_store": len(expected.records), "uninterrupted_seconds": seconds, **document}


def write_inputs(folder: Path) -> None:
    """Write the specification, small files of samples and untrained ONNX models."""
    chance = np.random.default_rng(0)
    task = {**SPEC["tasks"]["noise"], "data": str(folder / "samples.npz")}
    (folder / "spec.yaml").write_text(yaml.safe_dump({**SPEC, "tasks": {"noise": task}}))
    for name, count, side in (("samples.npz", 24, 32), ("few.npz", 6, 8)):
        images = chance.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        np.savez(folder / name, images=images, labels=np.arange(count) % CLASSES)
    (folder / "zoo").mkdir()
    for number in range(MODELS):
        (folder / "zoo" / f"{number}.onnx").write_bytes(_model(chance))


def _model(chance: np.random.Generator) -> bytes:
    """Return an untrained ONNX model with one hidden layer, for images of 8 x 8 pixels."""
    shapes = {"a": (192, 8), "b": (8,), "c": (8, CLASSES), "d": (CLASSES,)}
    weights = [onnx.numpy_helper.from_array(chance.normal(size=shapes[name]).astype("f"), name) for name in shapes]
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("Flatten", ["x"], ["flat"]), make("Gemm", ["flat", "a", "b"], ["sum"])]
    nodes += [make("Relu", ["sum"], ["hidden"]), make("Gemm", ["hidden", "c", "d"], ["y"])]
    inputs = [value("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])]
    outputs = [value("y", onnx.TensorProto.FLOAT, ["n", CLASSES])]
    graph = onnx.helper.make_graph(nodes, "model", inputs, outputs, weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def main(kills: int, folder: Path, names: Sequence[str]) -> None:
    """Measure both commands, and write the result file."""
    import_commands()
    gc.collect()
    gc.freeze()  # otherwise a collection in a fork would copy all memory
    multiprocessing.util.spawnv_passfds = fork_interpreter
    os.environ["OMP_NUM_THREADS"] = "1"
    processes.adopt_orphans()
    replace_jobs()
    write_inputs(folder)
    two = ("--workers", "2")
    known = {
        "bench run": Command("bench run", ("bench", "run", "spec.yaml", *two, "--store"), "store", ("--retry-failed",)),
        "audit-many": Command("audit-many", ("audit-many", "zoo", *AUDIT, *two, "--out"), "out"),
    }
    for seed, (name, command) in enumerate(known.items()):
        if names and name not in names:
            continue
        rows: dict[str, Any] = {}
        for kind, count in (("real", round(REAL * kills)), ("quick", kills - round(REAL * kills))):
            place = folder / f"{name.replace(' ', '-')}-{kind}"
            place.mkdir()
            for rows[kind] in measure(command, place, count, seed):
                save_result("kills", {"commands": {**load_result("kills").get("commands", {}), name: rows}})
            print(json.dumps(rows[kind], indent=1), flush=True)
            command = replace(command, quick=str(place / "first" / command.folder))


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("kills", nargs="?", type=int, default=500, metavar="KILLS", help="of each command")
    command_line.add_argument("--only", action="append", default=[], help="measure this command; the other stays")
    command_line.add_argument("--keep", type=Path, help="folder for the stores; those with a problem stay")
    given = command_line.parse_args()
    if given.keep is not None:
        given.keep.mkdir(parents=True)
        main(given.kills, given.keep.resolve(), given.only)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(given.kills, Path(folder), given.only)
