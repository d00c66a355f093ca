"""Compression-activated backdoors under deployment toolchains that the attack was not made for.

    assay bench run benchmarks/specs/dormant.yaml --store STORE
    python benchmarks/run.py deployment_toolchains dormant STORE    # results/deployers.json; resumable

The variants: files of ONNX Runtime calibrated on other images; PyTorch's own quantizer (torchao, if installed) and
pruners at every rate and width. Also roundings made to keep backdoors inactive. Each ASR is compared with the ASR of
the same trigger in the clean control, in the same variant. All rates are on the test split. No choice used that split.
"""

from __future__ import annotations

import copy
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from lib import commands, compression_attacks
from lib.paths import SHARED
from lib.results import load_models, save_result
from torch import Tensor, nn
from torch.nn.utils import prune

from assay import data, formats
from assay.core.build import Build
from assay.core.dataset import Split
from assay.graphs.export import to_onnx_int8
from assay.mitigations import CompressedTuning, Efrap, RandomRounding
from assay.nn import metrics
from assay.nn.batchnorm import following_batch_norms, weighted_layers
from assay.nn.reparametrize import convolutions, filter_pruned_weights, write_parameters
from assay.stages import variants
from assay.stages.base import Stage
from assay.stages.prune import PruneFilters, PruneMagnitude
from assay.stages.quantize import QuantizeWeights
from assay.stages.recalibrate import recalibrate_batchnorm

CALIBRATION = 512  # images
RATES = tuple(rate / 10 for rate in range(1, 10))
ANNEALING_STEPS = 60
ANNEALING_IMAGES = 256
OTHER_IMAGES = {"similar": "cifar100", "dissimilar": "gtsrb"}  # other calibration images for a CIFAR-10 model

Toolchain = Callable[[Build, Split, int], nn.Module]  # (model, calibration samples, seed)


def ort(build: Build, own: Split, seed: int, *, per_channel: bool, images: str = "own") -> nn.Module:
    """Return the int8 file that ONNX Runtime runs, calibrated on own images, one own image or other images."""
    x = own.x if images == "own" else own.x[:1] if images == "one" else other_images(build, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        to_onnx_int8(build.artifact, x, path, per_channel=per_channel)
        return formats.load(path).module


def other_images(build: Build, which: str) -> Tensor:
    """Return calibration images (N, C, H, W) of another data set."""
    name = OTHER_IMAGES[which] if build.task.name != OTHER_IMAGES[which] else "cifar10"
    return data.load(SHARED / "data" / name, build.artifact.inputs, limit=CALIBRATION).split("train").x


def torchao(build: Build, own: Split, seed: int) -> nn.Module:
    """Return static int8 by PyTorch's own quantizer for x86 processors."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    net = copy.deepcopy(build.artifact.module).eval()
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.export.export(net, (own.x[:4],), dynamic_shapes=(batch,)).module()
        prepared = prepare_pt2e(graph, quantizer)
        for part in own.x.split(64):
            prepared(part)
        return AlwaysEval(convert_pt2e(prepared))


class AlwaysEval(nn.Module):
    """An exported graph that ignores ``eval()``: it is in eval mode already and refuses the call."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.run = graph.forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def l2_filters(build: Build, own: Split, seed: int, *, rate: float, recalibrate: bool = False) -> nn.Module:
    """Prune filters by L2 norm with PyTorch's structured pruning."""
    net = copy.deepcopy(build.artifact.module)
    for layer in weighted_layers(net):
        if isinstance(layer, nn.Conv2d):
            prune.remove(prune.ln_structured(layer, "weight", amount=rate, n=2, dim=0), "weight")
    return recalibrate_batchnorm(net, own.x) if recalibrate else net


def anneal_filters(build: Build, own: Split, seed: int, *, rate: float) -> nn.Module:
    """Prune ``rate`` of all filters by L1 norm, with rates per layer chosen by accuracy on the calibration split.

    Simulated annealing starts from equal rates (Liu et al., AutoCompress, 2019, arXiv 1907.03141). The deployers of
    Tian, Suya, Xu, Evans (2021, arXiv 2104.15129) use it.
    """
    assert own.y is not None
    sizes = torch.tensor([float(len(conv.weight)) for conv in convolutions(build.artifact.module)])
    generator, few = torch.Generator().manual_seed(seed), Split(own.x[:ANNEALING_IMAGES], own.y[:ANNEALING_IMAGES])

    def accuracy(rates: Tensor) -> float:
        return metrics.clean_accuracy(prune_filters(build.artifact.module, rates, own.x[:2]), few).value

    now = best = torch.full_like(sizes, rate)
    energy = most = accuracy(now)
    for step in range(ANNEALING_STEPS):
        heat = 1 - step / ANNEALING_STEPS
        moved = now + 0.2 * heat * (2 * torch.rand(len(sizes), generator=generator) - 1)
        moved = shift_to_rate(moved, sizes, rate)
        value = accuracy(moved)
        if value > energy or torch.rand((), generator=generator) < math.exp(min(0.0, value - energy) / (0.02 * heat)):
            now, energy = moved, value
        if value > most:
            best, most = moved, value
    return prune_filters(build.artifact.module, best, own.x[:2])


def shift_to_rate(rates: Tensor, sizes: Tensor, rate: float) -> Tensor:
    """Shift ``rates`` (layers,) by one constant, so that ``rate`` of all filters (``sizes`` per layer) are pruned."""
    low, high = -1.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        enough = ((rates + middle).clamp(0, 0.9) * sizes).floor().sum() >= rate * sizes.sum()
        low, high = (low, middle) if enough else (middle, high)
    return (rates + high).clamp(0, 0.9)


def prune_filters(net: nn.Module, rates: Tensor, example: Tensor) -> nn.Module:
    """Prune the fraction of filters in ``rates`` (layers,) from each convolution."""
    pruned, left = copy.deepcopy(net), iter(rates.tolist())
    write_parameters(filter_pruned_weights(pruned, following_batch_norms(pruned, example), lambda: next(left)))
    return pruned


def apply_stage(build: Build, own: Split, seed: int, *, stage: Stage) -> nn.Module:
    """Return the model after one stage."""
    return stage(build, seed=seed).artifact.module


def make_variant(build: Build, own: Split, seed: int, *, name: str) -> nn.Module:
    """Return a variant of an audit."""
    return variants.make(name, build.artifact, own, seed=seed).module


def tuned_variant(build: Build, own: Split, seed: int, *, name: str) -> nn.Module:
    """Prune, then fine-tune the remaining weights on the calibration split."""
    pruned = replace(build, artifact=variants.make(name, build.artifact, own, seed=seed))
    return CompressedTuning()(pruned, seed=seed).artifact.module


def as_given(build: Build, own: Split, seed: int) -> nn.Module:
    """Return the model without compression."""
    return build.artifact.module


def toolchains() -> Iterator[tuple[str, Toolchain]]:
    """Yield name and toolchain of each variant."""
    yield "full", as_given
    for kind, per_channel in (("channel", True), ("tensor", False)):
        yield f"twin {kind}", partial(make_variant, name="int8" if per_channel else "int8-tensor")
        for images in ("own", "one", *OTHER_IMAGES):
            yield f"ort {kind} {images}", partial(ort, per_channel=per_channel, images=images)
        for bits in (8, 6, 4):
            yield (
                f"weights-{bits} {kind}",
                partial(apply_stage, stage=QuantizeWeights(bits=bits, per_channel=per_channel)),
            )
        for bits in (8, 4):
            yield f"efrap-{bits} {kind}", partial(apply_stage, stage=Efrap(bits=bits, per_channel=per_channel))
            tuned = CompressedTuning(bits=bits, per_channel=per_channel)
            yield f"tuned-{bits} {kind}", partial(apply_stage, stage=tuned)
            yield (
                f"random-{bits} {kind}",
                partial(apply_stage, stage=RandomRounding(bits=bits, per_channel=per_channel)),
            )
    yield "torchao", torchao
    yield "2:4", partial(make_variant, name="prune-2:4")
    yield "2:4 tuned", partial(tuned_variant, name="prune-2:4")
    yield "filters-30 tuned", partial(tuned_variant, name="filters-30")
    for rate in (0.3, 0.4, 0.5):
        yield f"filters annealed {rate}", partial(anneal_filters, rate=rate)
    for rate in RATES:
        yield f"weights pruned {rate}", partial(apply_stage, stage=PruneMagnitude(rate=rate))
        yield f"filters pruned {rate}", partial(apply_stage, stage=PruneFilters(rate=rate))
        yield f"filters pruned {rate} repaired", partial(apply_stage, stage=PruneFilters(rate=rate, recalibrate=True))
        yield f"L2 filters pruned {rate}", partial(l2_filters, rate=rate)
        yield f"L2 filters pruned {rate} repaired", partial(l2_filters, rate=rate, recalibrate=True)


def measure(model: compression_attacks.Model, make: Toolchain) -> dict[str, float] | None:
    """Return the rates of the model and of its clean control in one variant; None if a package is not installed."""
    own = model.build.task.split("calibration").sample(CALIBRATION, seed=model.seed)
    try:
        net, clean = (make(build, own, model.seed) for build in (model.build, model.clean_control))
    except ImportError:  # torchao is no dependency
        return None
    rates = compression_attacks.rates(net, model.build.task, model.build.secret)
    control = compression_attacks.rates(clean, model.build.task, model.build.secret)
    return {**rates, **{f"clean_twin_{figure}": value for figure, value in control.items()}}


def main(spec: str, store: Path, variants: tuple[str, ...], models: tuple[str, ...]) -> None:
    """Measure the missing variants of all models.

    Args:
        spec: Name of the specification, or ``files``.
        store: Store of the bench; for ``files`` a folder of planted models.
        variants: Beginnings of the variants' names.
        models: Beginnings of the models' names.
    """
    rows = load_models("deployers")
    for model in compression_attacks.models(spec, store):
        if model.build.secret is None or not model.name.startswith(models):
            continue
        row = rows.setdefault(
            model.name, {**compression_attacks.describe_attack(model.build, model.seed), "forms": {}}
        )["forms"]
        for name, make in toolchains():
            if name not in row and name.startswith(variants):
                rates = measure(model, make)
                if rates is not None:
                    row[name] = rates
                    print(model.name, name, rates, flush=True)
                    save_result("deployers", {"models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("spec")
    command_line.add_argument("store", type=Path)
    command_line.add_argument("--variants", nargs="*", default=[""], help="beginnings of names, as: full 'ort tensor'")
    command_line.add_argument("--models", nargs="*", default=[""], help="beginnings of names")
    options = command_line.parse_args()
    main(options.spec, options.store, tuple(options.variants), tuple(options.models))
