"""Cost of an audit in CPU seconds, compared with Neural Cleanse of BackdoorBench on the same model and machine.

One thread, float32 only. BackdoorBench (Wu et al., NeurIPS 2022, arXiv 2206.12654) is not part of this project: give
the folder of a checkout of github.com/SCLBD/BackdoorBench. Its search loop runs unchanged, with the defaults of its
configuration. Only the loading of model and data is replaced. It runs for a few epochs of one class, and the time is
extrapolated to all epochs and classes, without its early stop.

    python benchmarks/run.py audit_cost audit                  # the whole audit of a ResNet-20, by test
    python benchmarks/run.py audit_cost backdoorbench FOLDER   # its search, the search of assay and the whole audit
    python benchmarks/run.py audit_cost passes                 # passes of the tests by classes and pixels
                                                               # -> benchmarks/results/audit_cost.json
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from lib import commands
from lib.paths import SHARED
from lib.results import load_result, save_result
from torch import nn

from assay import formats
from assay.auditing.inputs import clean_samples
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.detectors import NeuralCleanse, default_detectors
from assay.detectors.cost import cost_of, expected_passes
from assay.formats.torch_module import from_module
from assay.nn.architectures import ARCHITECTURES, Normalized

MODEL = SHARED / "models/resnet20-cifar10/model.safetensors"
DATA = SHARED / "data/cifar10"
ASSAY = str(Path(sys.executable).parent / "assay")
ENVIRONMENT = {"ASSAY_PRECISION": "float32", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}

# Parts of defense/nc.py of BackdoorBench that make up the search.
SEARCH = frozenset({"Normalize", "Denormalize", "RegressionModel", "Recorder", "train_mask", "train_step"})
EPOCHS = 2  # measured, of one class
IMAGES = 2500  # its ratio of 0.05 of the training images of CIFAR-10

CLASSES, SIDES = (2, 10, 43, 100, 1001), (32, 96, 224)


def backdoorbench_seconds(folder: Path) -> dict[str, float]:
    """Run the search of a checkout of BackdoorBench for ``EPOCHS`` epochs of one class, and extrapolate.

    Args:
        folder: The checkout. Its code runs.
    """
    options = SimpleNamespace(**yaml.safe_load((folder / "config/defense/nc/config.yaml").read_text()))
    artifact = formats.load(MODEL, arch="resnet20-cifar")
    normalized = artifact.module
    assert isinstance(normalized, Normalized)
    net = normalized.net.eval()
    x = load_data(DATA, ImageSpec((3, 32, 32)), limit=IMAGES).split("train").x
    options.device, options.num_classes, options.input_channel, options.target_label = "cpu", 10, 3, 0
    total, classes = options.nc_epoch, options.num_classes
    options.nc_epoch = EPOCHS
    inputs = _names_for(options, net)
    source = ast.parse((folder / "defense/nc.py").read_text())
    source.body = [node for node in source.body if getattr(node, "name", "") in SEARCH]
    exec(compile(source, "nc.py", "exec"), inputs)
    normalize = inputs["Normalize"](options, [0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261])
    data = torch.utils.data.TensorDataset(normalize(x), torch.zeros(len(x), dtype=torch.long))
    loader = torch.utils.data.DataLoader(data, batch_size=options.batch_size, shuffle=True)
    mask, pattern = np.ones((1, 32, 32), np.float32), np.ones((3, 32, 32), np.float32)
    start = time.process_time()
    inputs["train_mask"](options, {"model": net.state_dict()}, loader, mask, pattern)
    epoch = (time.process_time() - start) / EPOCHS * IMAGES / len(x)
    return {"epoch": epoch, "epochs": total, "classes": classes, "all": epoch * total * classes}


def _names_for(options: SimpleNamespace, net: nn.Module) -> dict[str, Any]:
    """Return the names that the search of BackdoorBench finds in its module. It writes no files here."""

    def generate_cls_model(name: str, classes: int) -> nn.Module:
        return net

    unwritten = SimpleNamespace(getcwd=tempfile.gettempdir, path=os.path, makedirs=lambda path: None)
    pictures = SimpleNamespace(utils=SimpleNamespace(save_image=lambda *given, **settings: None))
    options.log = "unwritten"
    return {
        "torch": torch, "nn": nn, "np": np, "os": unwritten, "torchvision": pictures, "args": options,
        "generate_cls_model": generate_cls_model, "print": lambda *text: None,
    }  # fmt: skip


def search_seconds() -> float:
    """Return the CPU seconds of ``neural-cleanse`` on the same model, tracing included."""
    artifact = formats.load(MODEL, arch="resnet20-cifar")
    clean = clean_samples(str(DATA), artifact, seed=0).split
    start = time.process_time()
    finding = NeuralCleanse()(artifact, clean)
    assert finding.score is not None
    return time.process_time() - start


def audit_seconds(*options: str) -> dict[str, Any]:
    """Run ``assay audit`` with one thread in float32, and return CPU seconds, memory, verdict and seconds by test."""
    command = [ASSAY, "audit", str(MODEL), "--arch", "resnet20-cifar", "--data", str(DATA), "--json", "-", *options]
    with tempfile.TemporaryDirectory() as out:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([*command, "--out", out], capture_output=True, text=True, env=os.environ | ENVIRONMENT)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    document = json.loads(done.stdout)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": seconds,
        "peak_bytes": after.ru_maxrss * 1024,
        "verdict": document["verdict"],
        "p_value": document["p_value"],
        "by_test": {f"{f['variant']}/{f['detector']}": round(f["seconds"], 2) for f in document["findings"]},
    }


def expected_work() -> dict[str, dict[str, float]]:
    """Return the expected passes through the model of each default test on the model as given.

    A pass forwards one image. A pass with gradients counts three times.
    """
    table: dict[str, dict[str, float]] = {}
    for side in SIDES:
        for classes in CLASSES:
            net = ARCHITECTURES["resnet8-cifar"].build(classes)
            artifact = from_module(net, shape=(3, side, side))
            passes = {detector.name: expected_passes(cost_of(detector), artifact) for detector in default_detectors()}
            table[f"{classes} classes, {side} px"] = {name: round(value) for name, value in passes.items() if value}
    return table


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("part", choices=("audit", "backdoorbench", "passes"))
    command_line.add_argument("folder", nargs="?", type=Path, help="checkout of BackdoorBench")
    given: argparse.Namespace = command_line.parse_args()
    result = load_result("audit_cost")
    if given.part == "passes":
        result["passes"] = expected_work()
    elif given.part == "audit":
        result["audit"] = audit_seconds()
        result["quick"] = audit_seconds("--quick")
    elif given.folder is None:
        command_line.error("expected the folder of a checkout of BackdoorBench, got none")
    else:
        os.environ.update(ENVIRONMENT)
        torch.set_num_threads(1)
        published = backdoorbench_seconds(given.folder)
        search, audit = search_seconds(), audit_seconds()["cpu_seconds"]
        result["backdoorbench"] = {
            "published": published,
            "search": search,
            "audit": audit,
            "search_ratio": published["all"] / search,
            "audit_ratio": published["all"] / audit,
        }
    save_result("audit_cost", result)
