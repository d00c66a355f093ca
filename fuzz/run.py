"""Fuzz every reader of foreign files: change valid inputs at random, and expect a result or one clear line.

    python -m fuzz.run --cases 2000              # seconds; CI runs the corpus and a few cases as a test
    python -m fuzz.run --cases 100000 --jobs 2   # the table of the documentation
    python -m fuzz.run --reader model-onnx --case 17 --keep /tmp/case   # write one case to a folder and read it

A case is a function of its reader and its number. Processes run the cases in batches. A fault is any error except
``AssayError``, a crash, more than 20 s, or more than 2 GiB above the memory at the start of the case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuzz.mutations import mutate_folder
from fuzz.readers import READERS, Reader

MAX_SECONDS = 20.0  # of one case
MAX_MEMORY = 2 * 2**30  # bytes of one case
BATCH = 200  # cases of one process
CORPUS = Path(__file__).parent / "corpus"
POLL_SECONDS = 0.05


@dataclass
class Tally:
    """Counts of one reader."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    faults: dict[str, list[int]] = field(default_factory=dict)  # numbers of the cases by kind of fault
    seconds: float = 0.0
    slowest: float = 0.0  # seconds of one case
    largest: int = 0  # bytes of one case

    def add(self, number: int, outcome: str, seconds: float, memory: int) -> None:
        """Count one case.

        Args:
            number: Number of the case.
            outcome: "read", "refused", or the kind of fault.
            seconds: Duration.
            memory: Growth of the memory in bytes.
        """
        self.cases += 1
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, memory)
        if outcome in ("read", "refused"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            self.faults.setdefault(outcome, []).append(number)


def make_case(reader: Reader, base: Path, number: int, folder: Path) -> None:
    """Write a case into a folder.

    Args:
        reader: The reader.
        base: Folder with its valid input.
        number: Number of the case; 0 is the valid input.
        folder: New folder.
    """
    shutil.copytree(base, folder, symlinks=True)
    for file in folder.rglob("*.txt"):  # lists name the folder
        file.write_text(file.read_text().replace(str(base), str(folder)))
    if number:
        mutate_folder(random.Random(f"{reader.name} {number}"), folder)


def read_case(reader: Reader, folder: Path) -> str:
    """Read a case and return "read", "refused", or the kind of fault."""
    from assay.core.errors import AssayError

    try:
        reader.read(folder)
    except AssayError as error:
        return "refused" if str(error).strip() and "\n" not in str(error) else f"message of several lines: {error!r}"
    except BaseException as error:  # a panic of a native library is a BaseException
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/assay/" in frame.filename]
        place = f"in {Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "outside assay"
        return f"{type(error).__name__} {place}"
    return "read"


def run_batch(reader: Reader, base: Path, numbers: Sequence[int], pipe: int) -> None:
    """Run cases in this process, and write a line before and after each into a pipe."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=base.parent) as place:
        os.chdir(place)
        for number in numbers:
            folder = Path(place) / "case"
            make_case(reader, base, number, folder)
            os.write(pipe, json.dumps([number, None, _resident(os.getpid())]).encode() + b"\n")
            outcome = read_case(reader, folder)
            os.write(pipe, json.dumps([number, outcome, 0]).encode() + b"\n")
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)


def run_cases(reader: Reader, base: Path, numbers: Sequence[int]) -> Iterator[tuple[int, str, float, int]]:
    """Run cases in a child process, and again in a new one after each crash.

    Args:
        reader: The reader.
        base: Folder with its valid input.
        numbers: Numbers of the cases.

    Yields:
        Number, outcome, seconds and growth of memory of each case.
    """
    left = list(numbers)
    while left:
        for case in _watch(*_start(reader, base, left)):
            left.remove(case[0])
            yield case


def _start(reader: Reader, base: Path, numbers: Sequence[int]) -> tuple[int, int]:
    """Return the process id of a child that runs cases, and the pipe with its lines."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reads)
            run_batch(reader, base, numbers, writes)
            code = 0
        except BaseException:
            os.write(writes, json.dumps([-1, traceback.format_exc(), 0]).encode() + b"\n")
        finally:
            os._exit(code)
    os.close(writes)
    return child, reads


def _watch(child: int, pipe: int) -> Iterator[tuple[int, str, float, int]]:
    """Yield the cases of a child; kill it at the limits of time and memory."""
    selector, text = selectors.DefaultSelector(), b""
    selector.register(pipe, selectors.EVENT_READ)
    current, since, before, peak, killed = 0, time.monotonic(), 0, 0, ""
    while True:
        if not selector.select(POLL_SECONDS):
            peak = max(peak, _resident(child) - before)
            late = time.monotonic() - since > MAX_SECONDS
            if not killed and (late or peak > MAX_MEMORY):
                killed = "more than 20 s" if late else "more than 2 GiB"
                os.kill(child, signal.SIGKILL)
            continue
        if not (piece := os.read(pipe, 2**16)):
            break
        text += piece
        *lines, text = text.split(b"\n")
        for number, outcome, resident in map(json.loads, lines):
            if number < 0:
                raise RuntimeError(f"the harness failed: {outcome}")
            if outcome is None:
                current, since, before, peak = number, time.monotonic(), resident, 0
            else:
                yield number, outcome, time.monotonic() - since, peak
                current, since = -1, time.monotonic()
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and current >= 0:
        yield current, killed or signal.Signals(os.WTERMSIG(status)).name, time.monotonic() - since, peak


def _resident(process: int) -> int:
    """Return the resident memory of a process in bytes; 0 after its end."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def fuzz(reader: Reader, base: Path, cases: int, *, first: int = 0) -> Tally:
    """Run the cases of one reader.

    Args:
        reader: The reader.
        base: Folder with its valid input.
        cases: Number of cases.
        first: Number of the first case.
    """
    tally, start = Tally(), time.monotonic()
    for low in range(first, first + cases, BATCH):
        for case in run_cases(reader, base, range(low, min(low + BATCH, first + cases))):
            tally.add(*case)
    tally.seconds = time.monotonic() - start
    return tally


def warm_up() -> None:
    """Import the libraries of the readers once, so that children share them."""
    import datasets
    import onnxruntime
    import pyarrow.parquet
    import torch
    import transformers

    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(4)
    del datasets, pyarrow, transformers


def make_bases(folder: Path, readers: Sequence[Reader]) -> dict[str, Path]:
    """Write the valid input of each reader, in child processes, and return the folders by reader."""
    bases = {reader.name: folder / reader.name for reader in readers}
    for reader in readers:
        bases[reader.name].mkdir()
        child = os.fork()  # torch must not start its threads before the forks to come
        if child == 0:
            code = 1
            try:
                reader.make(bases[reader.name])
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError(f"cannot make the input of {reader.name}")
    return bases


def replay(folder: Path = CORPUS) -> Iterator[tuple[Path, str]]:
    """Yield each case of the corpus with its outcome."""
    by_name = {reader.name: reader for reader in READERS}
    for case in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        with tempfile.TemporaryDirectory() as place:
            copied = Path(place) / "case"
            shutil.copytree(case, copied, symlinks=True)
            yield case, read_case(by_name[case.parent.name], copied)


def shares(readers: Sequence[Reader], cases: int) -> dict[str, int]:
    """Return the number of cases of each reader, by its weight; together at least ``cases``."""
    total = sum(reader.weight for reader in readers)
    return {reader.name: -(-cases * reader.weight // total) for reader in readers}


def show(tallies: dict[str, Tally]) -> None:
    """Print the table of cases and the faults."""
    print(f"{'reader':20} {'cases':>7} {'read':>7} {'refused':>8} {'faults':>7} {'slowest':>8} {'memory':>9}")
    for name, tally in tallies.items():
        faults = sum(map(len, tally.faults.values()))
        memory = f"{tally.largest / 2**20:,.0f} MiB"
        print(
            f"{name:20} {tally.cases:7} {tally.read:7} {tally.refused:8} {faults:7} {tally.slowest:7.1f}s {memory:>9}"
        )
    for name, tally in tallies.items():
        for kind, numbers in Counter({k: len(v) for k, v in tally.faults.items()}).most_common():
            print(f"{name}: {numbers} x {kind}, first case {tally.faults[kind][0]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="cases of all readers together")
    parser.add_argument("--reader", action="append", choices=[r.name for r in READERS], help="only these readers")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=1, help="readers at the same time")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    parser.add_argument("--case", type=int, help="write one case to --keep and read it, with its error")
    parser.add_argument("--keep", type=Path, help="folder of --case")
    options = parser.parse_args(arguments)
    readers = [reader for reader in READERS if options.reader is None or reader.name in options.reader]
    warm_up()
    with tempfile.TemporaryDirectory(prefix="assay-fuzz-") as place:
        bases = make_bases(Path(place), readers)
        if options.case is not None:
            make_case(readers[0], bases[readers[0].name], options.case, options.keep)
            readers[0].read(options.keep)
            return 0
        wanted = shares(readers, options.cases)
        with ThreadPoolExecutor(options.jobs) as pool:
            started = {
                r.name: pool.submit(fuzz, r, bases[r.name], wanted[r.name], first=options.first) for r in readers
            }
            tallies = {name: future.result() for name, future in started.items()}
    show(tallies)
    if options.json is not None:
        options.json.write_text(json.dumps({name: asdict(tally) for name, tally in tallies.items()}, indent=1) + "\n")
    return int(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
