"""What people do to models that they deploy, and what of a sleeping backdoor that wakes: the attacker is not there.

    assay bench run benchmarks/specs/dormant.yaml --store STORE
    python benchmarks/run.py deployment_toolchains dormant STORE [FORMS [MODELS]]    # -> results/deployers.json; resumable

Forms that no attack was made for: files of ONNX Runtime calibrated on other pictures, PyTorch's own quantizer (torchao,
if it is installed) and pruners, every rate and width, and roundings that are made to keep backdoors asleep. Beside each
ASR stands that of the same trigger on the clean twin in the same form. All of it on the test split, which nothing here
was chosen by.
"""

from __future__ import annotations

import copy
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
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
from compression import compression_attacks as sleepers

CALIBRATION = 512  # pictures
RATES = tuple(rate / 10 for rate in range(1, 10))
ANNEALING, ANNEALED_ON = 60, 256  # steps of the search for layer rates, pictures it goes by
OTHERS = {"similar": "cifar100", "dissimilar": "gtsrb"}  # pictures to calibrate on, for a CIFAR-10 net

Form = Callable[[Build, Split, int], nn.Module]


def ort(build: Build, own: Split, seed: int, *, per_channel: bool, pictures: str = "own") -> nn.Module:
    """The file that ONNX Runtime runs."""
    x = own.x if pictures == "own" else own.x[:1] if pictures == "one" else other_pictures(build, pictures)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        to_onnx_int8(build.artifact, x, path, per_channel=per_channel)
        return formats.load(path).module


def other_pictures(build: Build, which: str) -> Tensor:
    name = OTHERS[which] if build.task.name != OTHERS[which] else "cifar10"
    return data.load(SHARED / "data" / name, build.artifact.inputs, limit=CALIBRATION).split("train").x


def torchao(build: Build, own: Split, seed: int) -> nn.Module:
    """Static int8 by PyTorch's own quantizer for x86 processors."""
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
    """An exported graph, which is in eval mode for good and will not be told so."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.run = graph.forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def l2_filters(build: Build, own: Split, seed: int, *, rate: float, repaired: bool = False) -> nn.Module:
    """PyTorch's own structured pruning, by the L2 norm of filters; batch norm keeps what it has, or is ``repaired``."""
    net = copy.deepcopy(build.artifact.module)
    for layer in weighted_layers(net):
        if isinstance(layer, nn.Conv2d):
            prune.remove(prune.ln_structured(layer, "weight", amount=rate, n=2, dim=0), "weight")
    return recalibrate_batchnorm(net, own.x) if repaired else net


def annealed(build: Build, own: Split, seed: int, *, rate: float) -> nn.Module:
    """``rate`` of all filters pruned by L1 norm, more in some layers than in others, as the calibration split bears it.

    Layer rates by simulated annealing from equal ones (Liu et al., AutoCompress, 2019, arXiv 1907.03141), which is what
    the deployers of Tian, Suya, Xu, Evans (2021, arXiv 2104.15129) do.
    """
    assert own.y is not None
    sizes = torch.tensor([float(len(conv.weight)) for conv in convolutions(build.artifact.module)])
    generator, few = torch.Generator().manual_seed(seed), Split(own.x[:ANNEALED_ON], own.y[:ANNEALED_ON])

    def accuracy(rates: Tensor) -> float:
        return metrics.clean_accuracy(without(build.artifact.module, rates, own.x[:2]), few).value

    now = best = torch.full_like(sizes, rate)
    energy = most = accuracy(now)
    for step in range(ANNEALING):
        heat = 1 - step / ANNEALING
        moved = now + 0.2 * heat * (2 * torch.rand(len(sizes), generator=generator) - 1)
        moved = shifted(moved, sizes, rate)
        value = accuracy(moved)
        if value > energy or torch.rand((), generator=generator) < math.exp(min(0.0, value - energy) / (0.02 * heat)):
            now, energy = moved, value
        if value > most:
            best, most = moved, value
    return without(build.artifact.module, best, own.x[:2])


def shifted(rates: Tensor, sizes: Tensor, rate: float) -> Tensor:
    """``rates`` (layers,), all more or all less by as much as makes them ``rate`` of all filters, of ``sizes``."""
    low, high = -1.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        enough = ((rates + middle).clamp(0, 0.9) * sizes).floor().sum() >= rate * sizes.sum()
        low, high = (low, middle) if enough else (middle, high)
    return (rates + high).clamp(0, 0.9)


def without(net: nn.Module, rates: Tensor, example: Tensor) -> nn.Module:
    """``net`` less the share of its filters that ``rates`` (layers,) say for each convolution."""
    pruned, left = copy.deepcopy(net), iter(rates.tolist())
    write_parameters(filter_pruned_weights(pruned, following_batch_norms(pruned, example), lambda: next(left)))
    return pruned


def staged(build: Build, own: Split, seed: int, *, stage: Stage) -> nn.Module:
    return stage(build, seed=seed).artifact.module


def form(build: Build, own: Split, seed: int, *, name: str) -> nn.Module:
    return variants.make(name, build.artifact, own, seed=seed).module


def tuned_form(build: Build, own: Split, seed: int, *, name: str) -> nn.Module:
    """Pruned, and then fine-tuned without what was pruned, on the calibration split."""
    pruned = replace(build, artifact=variants.make(name, build.artifact, own, seed=seed))
    return CompressedTuning()(pruned, seed=seed).artifact.module


def given(build: Build, own: Split, seed: int) -> nn.Module:
    return build.artifact.module


def forms() -> Iterator[tuple[str, Form]]:
    yield "full", given
    for kind, per_channel in (("channel", True), ("tensor", False)):
        yield f"twin {kind}", partial(form, name="int8" if per_channel else "int8-tensor")
        for pictures in ("own", "one", *OTHERS):
            yield f"ort {kind} {pictures}", partial(ort, per_channel=per_channel, pictures=pictures)
        for bits in (8, 6, 4):
            yield f"weights-{bits} {kind}", partial(staged, stage=QuantizeWeights(bits=bits, per_channel=per_channel))
        for bits in (8, 4):
            yield f"efrap-{bits} {kind}", partial(staged, stage=Efrap(bits=bits, per_channel=per_channel))
            tuned = CompressedTuning(bits=bits, per_channel=per_channel)
            yield f"tuned-{bits} {kind}", partial(staged, stage=tuned)
            yield f"random-{bits} {kind}", partial(staged, stage=RandomRounding(bits=bits, per_channel=per_channel))
    yield "torchao", torchao
    yield "2:4", partial(form, name="prune-2:4")
    yield "2:4 tuned", partial(tuned_form, name="prune-2:4")
    yield "filters-30 tuned", partial(tuned_form, name="filters-30")
    for rate in (0.3, 0.4, 0.5):
        yield f"filters annealed {rate}", partial(annealed, rate=rate)
    for rate in RATES:
        yield f"weights pruned {rate}", partial(staged, stage=PruneMagnitude(rate=rate))
        yield f"filters pruned {rate}", partial(staged, stage=PruneFilters(rate=rate))
        yield f"filters pruned {rate} repaired", partial(staged, stage=PruneFilters(rate=rate, recalibrate=True))
        yield f"L2 filters pruned {rate}", partial(l2_filters, rate=rate)
        yield f"L2 filters pruned {rate} repaired", partial(l2_filters, rate=rate, repaired=True)


def measured(model: sleepers.Model, make: Form) -> dict[str, float] | None:
    """The rates of the model and of its clean twin in one form; None where that takes what is not installed."""
    own = model.build.task.split("calibration").sample(CALIBRATION, seed=model.seed)
    try:
        net, twin = (make(build, own, model.seed) for build in (model.build, model.twin))
    except ImportError:  # of torchao, which is no dependency
        return None
    rates = sleepers.rates(net, model.build.task, model.build.secret)
    control = sleepers.rates(twin, model.build.task, model.build.secret)
    return {**rates, **{f"clean_twin_{figure}": value for figure, value in control.items()}}


def main(spec: str, store: str, only: str = "", which: str = "") -> None:
    """``only``: the forms whose names begin with one of these, as ``full,ort tensor``; ``which``: models, likewise."""
    models = load_models("deployers")
    for model in sleepers.models(spec, Path(store)):
        if model.build.secret is None or not model.name.startswith(tuple(which.split(","))):
            continue
        facts = {**sleepers.facts(model.build, model.seed), "forms": {}}
        found = models.setdefault(model.name, facts)["forms"]
        for name, make in forms():
            if name not in found and name.startswith(tuple(only.split(","))):
                rates = measured(model, make)
                if rates is not None:
                    found[name] = rates
                    print(model.name, name, rates, flush=True)
                    save_result("deployers", {"models": models})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
