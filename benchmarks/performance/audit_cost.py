"""Cost of an audit in CPU seconds, compared with Neural Cleanse of BackdoorBench on the same model and machine.

One thread, float32 only. BackdoorBench (Wu et al., NeurIPS 2022, arXiv 2206.12654) is not part of this project: give
the folder of a checkout of github.com/SCLBD/BackdoorBench. Its search loop runs unchanged, with the defaults of its
configuration. Only the loading of model and data is replaced. It runs for a few epochs of one class, and the time is
extrapolated to all epochs and classes, without its early stop.

    python benchmarks/run.py audit_cost audit                  # the whole audit of a ResNet-20, by test
    python benchmarks/run.py audit_cost backdoorbench FOLDER   # its search, the search of assay and the whole audit
                                                               # -> benchmarks/results/audit_cost.json
"""

from __future__ import annotations

import argparse
import ast
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from lib import commands
from lib.results import load_result, save_result
from lib.timed_audit import ARCH, DATA, ENVIRONMENT, MODEL, timed_audit
from torch import nn

from assay import formats
from assay.auditing.inputs import clean_samples
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.detectors import NeuralCleanse
from assay.nn.architectures import Normalized

# Parts of defense/nc.py of BackdoorBench that make up the search.
SEARCH = frozenset({"Normalize", "Denormalize", "RegressionModel", "Recorder", "train_mask", "train_step"})
EPOCHS = 2  # measured, of one class
IMAGES = 2500  # its ratio of 0.05 of the training images of CIFAR-10


def backdoorbench_seconds(folder: Path) -> dict[str, float]:
    """Run the search of a checkout of BackdoorBench for ``EPOCHS`` epochs of one class, and extrapolate.

    Args:
        folder: The checkout. Its code runs.
    """
    options = SimpleNamespace(**yaml.safe_load((folder / "config/defense/nc/config.yaml").read_text()))
    artifact = formats.load(MODEL, arch=ARCH)
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
    artifact = formats.load(MODEL, arch=ARCH)
    clean = clean_samples(str(DATA), artifact, seed=0).split
    start = time.process_time()
    finding = NeuralCleanse()(artifact, clean)
    assert finding.score is not None
    return time.process_time() - start


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("part", choices=("audit", "backdoorbench"))
    command_line.add_argument("folder", nargs="?", type=Path, help="checkout of BackdoorBench")
    given: argparse.Namespace = command_line.parse_args()
    result = load_result("audit_cost")
    if given.part == "audit":
        result["audit"] = timed_audit().figures()
    elif given.folder is None:
        command_line.error("expected the folder of a checkout of BackdoorBench, got none")
    else:
        os.environ.update(ENVIRONMENT)
        torch.set_num_threads(1)
        published = backdoorbench_seconds(given.folder)
        search, audit = search_seconds(), timed_audit().cpu_seconds
        result["backdoorbench"] = {
            "published": published,
            "search": search,
            "audit": audit,
            "search_ratio": published["all"] / search,
            "audit_ratio": published["all"] / audit,
        }
    save_result("audit_cost", result)
