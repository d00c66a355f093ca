"""Inputs that failed in public reports, and hostile ones: exit code, accuracy and message of ``assay audit``.

    python benchmarks/run.py cases [NAME ...]       # -> benchmarks/results/cases.json; without names: the missing rows

Each case runs the command line in a process of its own. A row holds if the exit code, the accuracy and the words of
the message are as expected, and if the run ends in time. Commands use one cheap test where the search is not the point.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import ResumableRows

CASES = SHARED / "cases"
ASSAY = [sys.executable, "-m", "assay"]
CIFAR = SHARED / "data/cifar10"
RESNET = [str(SHARED / "models/resnet20-cifar10/model.safetensors"), "--arch", "resnet20-cifar"]
NORMALIZED = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
QUICK = ["--variants", "full", "--detectors", "channel-lipschitz"]
SNAPSHOT = "models--somebody--cifar-onnx/snapshots/9f4bef82ea6e296bc69f8a2f5939f73af81b07a6"  # in the hub's cache
BATCH = "20 batch statistics"
NOT_CLEAN, REFUSED, INCONCLUSIVE = frozenset({1, 2, 3}), frozenset({2}), frozenset({3})


@dataclass(frozen=True)
class Case:
    """One command and its expected end."""

    name: str
    arguments: tuple[str, ...]  # of ``assay audit``; paths below the cases without a slash in front
    codes: frozenset[int] = INCONCLUSIVE  # one cheap test decides nothing
    accuracy: float | None = None  # at least
    words: str = ""  # regular expression in the output
    code: str = ""  # folder of the user's own code
    seconds: float = 600.0  # at most


def case(
    name: str, *arguments: object, codes: frozenset[int] = INCONCLUSIVE, accuracy: float | None = None, words: str = ""
) -> Case:
    """Return a case."""
    return Case(name, tuple(map(str, arguments)), codes, accuracy, words)


def at(name: str) -> str:
    """Return the path of a case's file."""
    return str(CASES / name)


def copy_cache(folder: Path) -> Path:
    """Copy the hub's cache and return the copy. Links that were stored as text become links again."""
    copied = Path(shutil.copytree(CASES / "02-hf-cache-onnx-data/hub", folder / "hub", symlinks=True))
    for file in list(copied.rglob("*")):
        if file.is_file() and not file.is_symlink() and (content := file.read_bytes()[:300]).startswith(b"../"):
            file.parent.chmod(0o755)
            file.unlink()
            file.symlink_to(content.decode())
    return copied


def shared_tensors(folder: Path) -> Case:
    """Return the case of a model with shared tensors. Its architecture imports from the current place of assay's."""
    folder.mkdir()
    source = (CASES / "17-shared-tensors/mynet.py").read_text()
    (folder / "mynet.py").write_text(source.replace("assay.models", "assay.nn.architectures"))
    arguments = [at("17-shared-tensors/model.safetensors"), "--arch", "mynet:build", "--shape", "3,32,32", *NORMALIZED]
    return replace(case("17 shared tensors", *arguments, "--data", CIFAR, *QUICK, accuracy=0.9), code=str(folder))


def all_cases(folder: Path) -> list[Case]:
    """Return all cases in the order of their folders.

    Args:
        folder: Empty folder for copies.
    """
    reports = [*report_cases(copy_cache(folder) / SNAPSHOT), shared_tensors(folder / "code")]
    return [*reports, *label_cases(), *hostile_cases(), *kind_cases()]


def report_cases(snapshot: Path) -> list[Case]:
    """Return the cases from public reports, those of labels aside.

    Args:
        snapshot: Model in a cache of the hub.
    """
    cifar, label = ["--data", CIFAR, *QUICK], ["--data", CIFAR, *QUICK, *NORMALIZED]
    resnet = [*RESNET, *QUICK, "--data"]
    optimum, two_outputs = at("01-optimum-folder/model"), at("04-two-outputs/model.onnx")
    decoy = [at("04-two-outputs/decoy-head-first.onnx"), "--mean", "0", "--std", "1", "--data", "signs"]
    return [
        case("01 optimum folder", optimum, *cifar, accuracy=0.99),
        case("01 file in it", f"{optimum}/model.onnx", *cifar, accuracy=0.99),
        case("01 file with shape", f"{optimum}/model.onnx", "--shape", "3,32,32", *cifar, accuracy=0.99),
        case("02 hub cache", snapshot / "model.onnx", *label, accuracy=0.9),
        case("02 hub cache, deeper", snapshot / "onnx/model.onnx", *label, accuracy=0.9),
        case("03 EXIF", *resnet, at("03-exif/data"), accuracy=0.9),
        case("04 decoy output", *decoy, "--variants", "full", codes=REFUSED, words="output"),
        case("04 features first", two_outputs, "--no-labels", *label, codes=REFUSED, words="output"),
        case("04 chosen output", two_outputs, "--output", "output", *label, accuracy=0.9, words="ReduceMean"),
        case("06 batch of one", at("06-batch-one/model.onnx"), *label, accuracy=0.9),
        case("07 uint8 input", at("07-inputs/uint8.onnx"), *cifar, accuracy=0.9),
        case("07 unread input", at("07-inputs/two-inputs.onnx"), *label, accuracy=0.9),
        case("18 LFS folder", at("18-lfs-pointer/model"), "--data", CIFAR, codes=REFUSED, words="git lfs pull"),
        case("18 LFS file", at("18-lfs-pointer/model.onnx"), "--data", CIFAR, codes=REFUSED, words="git lfs pull"),
        case("18 LFS data", *resnet, at("18-lfs-pointer/data"), codes=REFUSED, words="git lfs pull"),
        case("27 float TIFF", *resnet, at("27-float-pictures/floats"), accuracy=0.8),
        case("28 QDQ", at("28-onnx-kinds/qdq-s8-perchannel.onnx"), *label, accuracy=0.9, words=r"VNNI|saturat"),
    ]


def label_cases() -> list[Case]:
    """Return the cases about class folders, words and columns."""
    resnet, anything = [*RESNET, *QUICK, "--data"], frozenset({2, 3})
    folders = [at("08-numeric-folders/model"), "--data", at("08-numeric-folders/data"), *QUICK]

    def column(name: str, *arguments: str, **expected: Any) -> Case:
        shown = f"12 {name} {' '.join(arguments)}".strip()
        return case(shown, *resnet, at(f"12-label-columns/{name}.parquet"), *arguments, **expected)

    return [
        case("08 numeric folders", *folders, accuracy=0.9),
        case("10 words", *resnet, at("10-word-labels/data"), accuracy=0.9),
        # 91 % of all 475 samples. The audit draws 112 of them, and the model is right on 100.
        case("10 words, split by split", *resnet, at("10-word-labels/data2"), accuracy=0.88),
        column("ClassId", words="ClassId"),
        column("ClassId", "--label-column", "ClassId", accuracy=0.9),
        column("float", accuracy=0.9),
        column("digits-as-text", accuracy=0.9),
        column("categorical", accuracy=0.9),
        column("list", codes=anything, words="list|label"),
        column("null", codes=anything, words="null|label"),
    ]


def hostile_cases() -> list[Case]:
    """Return the hostile and damaged inputs."""
    data = ["--data", at("hostile/d.npz"), "--variants", "full"]
    plain = ["--mean", "0", "--std", "1"]
    texts = ["--data", SHARED / "data/sst2", "--detectors", "graph", "--variants", "full"]  # the tokenizer is read
    models = ["tok_panic", "hf-26b25611/m", "hf-2868746c/m", "network/upernet", "hf_labels", "hf-crash-479/m"]
    data_files = ["nonpy.npz", "npz-1320f439/d.npz", "npz-394bdf95/d.npz", "npz-4cba671a/d.npz", "npz-70a96043/d.npz"]
    data_files += ["biglabel.npz", "parquet-3e549d88/d.parquet", "parquet-71f5ff82", "parquet-948cdba6"]
    anything = frozenset({2, 3})
    return [
        replace(case("batch-size gate", at("hostile/e3_batch1.onnx"), *data, *plain, codes=NOT_CLEAN), seconds=1800),
        case("stepped logits, clean model", at("hostile/e1_floor_clean.onnx"), *data, *plain, codes=INCONCLUSIVE),
        *(case(name, at(f"hostile/{name}"), *data, codes=anything) for name in models),
        *(
            case(f"{name}, read", at(f"hostile/{name}"), *texts, codes=anything)
            for name in ("tok_panic", "hf-26b25611/m", "hf-2868746c/m", "hf-crash-479/m")
        ),
        *(case(name, at(f"hostile/{name}"), *data, codes=anything) for name in ("loop.onnx", "batch1e6.onnx")),
        *(
            case(name, at(f"hostile/{name}/m.onnx"), *data, codes=anything)
            for name in ("onnx-crash-1563", "onnx-29a21fa7")
        ),
        case("65 dimensions", at("hostile/safetensors-209e4324/m.safetensors"), *data, codes=REFUSED),
        *(case(name, *RESNET, "--data", at(f"hostile/{name}"), *QUICK, codes=anything) for name in data_files),
        *(
            case(name, *RESNET, "--null", at(f"hostile/{name}/f.json"), "--data", CIFAR, *QUICK, codes=REFUSED)
            for name in ("json-1375a495", "json-3bf1b322")
        ),
    ]


def kind_cases() -> list[Case]:
    """Return the kinds of models whose answer misled."""
    labelled = ["--data", CIFAR, *QUICK]
    anything = frozenset({2, 3})
    return [
        case("multi-label", at("kinds/vit-multilabel"), *labelled, codes=anything, words="multi-label|several labels"),
        case("adapter", at("kinds/lora-hand"), *labelled, codes=REFUSED, words="LoRA|adapter"),
        case("timm", at("kinds/timm-resnet"), *labelled, codes=anything, words="timm"),
        case("CLIP", at("kinds/clip"), *labelled, codes=anything, words="vision"),
        case("text classifier", at("kinds/bert-sst2"), "--data", SHARED / "data/sst2", codes=anything, words="text"),
        case("0 to 255", at("kinds/float255.onnx"), *labelled, codes=anything, words="255|--mean"),
        # Both files are the same small model, right on 61 % of 1,000 test images.
        case("uint8 NHWC", at("kinds/uint8-nhwc.onnx"), *labelled, accuracy=0.55),
    ]


def run_case(found: Case) -> dict[str, Any]:
    """Run one case and return its row."""
    environment = {**os.environ, "PYTHONPATH": found.code, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out, document = Path(folder) / "report", Path(folder) / "audit.json"
        line = [*ASSAY, "audit", *found.arguments, "--out", str(out), "--json", str(document)]
        start = time.perf_counter()
        try:
            ended = subprocess.run(
                line, capture_output=True, text=True, errors="replace", timeout=found.seconds, env=environment
            )
            code, text = ended.returncode, ended.stdout + ended.stderr
        except subprocess.TimeoutExpired:
            code, text = -1, "no end in time"
        seconds = time.perf_counter() - start
        audit = json.loads(document.read_text()) if document.exists() else {}
    full = next((variant for variant in audit.get("variants", ()) if variant["name"] == "full"), {})
    lines, problems = text.strip().splitlines() or [""], []
    if code not in found.codes:
        problems.append(f"exit code {code}")
    if found.accuracy is not None and (full.get("accuracy") or 0) < found.accuracy:
        problems.append(f"accuracy {full.get('accuracy')}")
    if not re.search(found.words, text):
        problems.append(f"no words {found.words!r}")
    if "Traceback" in text or "please report" in text:
        problems.append("unexpected error")
    return {
        "name": found.name,
        "exit_code": code,
        "verdict": audit.get("verdict"),
        "accuracy": full.get("accuracy"),
        "seconds": round(seconds, 1),
        "message": (audit.get("reason") or lines[-1][:300]).replace(str(SHARED), "../shared"),
        "input_check": audit.get("input_check"),
        "notes": [note.replace(str(SHARED), "../shared") for note in audit.get("notes", ())],
        "problems": problems,
    }


def batch_statistics() -> dict[str, Any]:
    """Audit a model that normalizes by the statistics of its batch: the verdict must state it."""
    import assay
    from assay import data
    from assay.core.model import ImageSpec
    from assay.formats import load

    module = load(RESNET[0], arch=RESNET[2], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).module
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.track_running_stats, part.running_mean, part.running_var = False, None, None
    clean = data.load(CIFAR, ImageSpec((3, 32, 32)), num_classes=10, limit=512).splits["calibration"]
    pair = (clean.x, clean.y)
    audit = assay.audit(module.eval(), pair, shape=(3, 32, 32), variant_names=("full",), detectors="channel-lipschitz")
    text = " ".join((audit.reason, *audit.notes, *audit.limits))
    problems = [] if audit.verdict == "inconclusive" and re.search(r"batch|alone|other samples", text) else [text[:300]]
    row = {"name": BATCH, "exit_code": None, "verdict": audit.verdict, "accuracy": audit.accuracy}
    return {**row, "seconds": round(audit.seconds, 1), "message": audit.reason, "problems": problems}


def summarize(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the head of the result file."""
    return {"cases": len(rows), "as_expected": sum(not row["problems"] for row in rows.values())}


def main(names: list[str], jobs: int) -> None:
    """Run the cases, print a line for each, and save each row.

    Args:
        names: Texts in the names of the cases to run again. None: all cases without a row.
        jobs: Cases at the same time.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rows = ResumableRows("cases", summarize)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        found = {case.name: case for case in all_cases(Path(folder))}
        runs = {name: partial(run_case, case) for name, case in found.items()} | {BATCH: batch_statistics}
        rows.rows = {name: row for name, row in rows.rows.items() if name in runs}
        chosen = [n for n in runs if any(text in n for text in names)] if names else list(rows.missing(runs))
        for ended in as_completed([pool.submit(runs[name]) for name in chosen]):
            row = ended.result()
            rows.put(row["name"], row)
            mark = f"BAD {row['problems']}" if row["problems"] else "ok "
            print(f"{mark} {row['name']:28} rc {row['exit_code']} {row['seconds']:6.1f} s {row['message']}", flush=True)
    print(f"{summarize(rows.rows)['as_expected']} of {len(rows.rows)} as expected")


def cli(arguments: list[str] | None = None) -> None:
    """Parse the command line."""
    parser = commands.parser(__doc__)
    parser.add_argument("names", nargs="*", help="run the cases with one of these texts in their names again")
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time")
    given = parser.parse_args(arguments)
    main(given.names, given.jobs)
