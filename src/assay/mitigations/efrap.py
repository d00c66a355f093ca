"""EFRAP: weights rounded away from the nearest value where that error may carry a backdoor, while outputs stay.

Li, Cai, Li, Xue, Li, Li: Nearest is Not Dearest: Towards Practical Defense against Quantization-conditioned Backdoor
Attacks, CVPR 2024, arXiv 2405.12725. Here batch norm is folded first and a layer takes 300 steps in place of 10,000.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from assay.core.build import Build
from assay.nn.batchnorm import Layer, fold_factors
from assay.nn.fake_quant import quantization_step
from assay.nn.reparametrize import check_bits, unfold_weight
from assay.stages.base import spec_of


@dataclass(frozen=True, kw_only=True)
class Efrap:
    """Weights at ``bits`` bits, each rounded up or down as learned on clean samples without labels; activations stay.

    ``error_weight`` and ``decision_weight`` weigh, against the change of a layer's output, the push away from nearest
    and the push to a decision. At four bits an ``error_weight`` of 1 cost a ResNet-20 4 points of accuracy; at eight,
    0.3 left a backdoor awake.
    """

    bits: int = 8  # 2 to 8
    per_channel: bool = True
    samples: int = 512  # from the calibration split, or else the training split
    steps: int = 300  # a layer
    lr: float = 0.02
    batch_size: int = 32
    error_weight: float | None = None  # None: 1, as the authors have it; 0.3 at four bits and fewer
    decision_weight: float = 0.01

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def name(self) -> str:
        return f"efrap-int{self.bits}"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.module).eval()
        full = copy.deepcopy(net).requires_grad_(False)
        x = build.task.split("calibration", "train").sample(self.samples, seed=seed).x
        generator = torch.Generator().manual_seed(seed)
        factors, others = fold_factors(full, x[:2]), fold_factors(net, x[:2])
        pairs = dict(zip(factors, others, strict=True))
        for layer in in_order(full, pairs, x[:2]):
            wanted, got = inputs_of(full, layer, x), inputs_of(net, pairs[layer], x)  # from what is rounded before it
            chosen = self._rounded(layer, factors[layer], wanted, got, generator)
            pairs[layer].weight.data.copy_(chosen)
        return build.then(self.name, build.artifact.with_module(net, format="module"))

    def _rounded(self, layer: Layer, factor: Tensor, wanted: Tensor, got: Tensor, generator: torch.Generator) -> Tensor:
        """The weight of ``layer`` with every value that batch norm leaves on the grid, up or down as learned."""
        folded = (layer.weight * factor).detach()
        step = quantization_step(folded, self.bits, 0 if self.per_channel else None)
        levels = 2 ** (self.bits - 1) - 1
        down = (folded / step).floor()
        part = folded / step - down  # in [0, 1)
        nearest = (part >= 0.5).float()
        error = (part - nearest).abs() * step
        choice = part.clamp(0.01, 0.99).logit().requires_grad_()
        optimizer = torch.optim.Adam([choice], lr=self.lr)
        push = self.error_weight if self.error_weight is not None else 1.0 if self.bits > 4 else 0.3
        for _ in range(self.steps):
            index = torch.randint(len(got), (self.batch_size,), generator=generator)
            up = choice.sigmoid()
            soft = (down + up).clamp(-levels, levels) * step
            moved = _without_bias(layer, soft, got[index]) - _without_bias(layer, folded, wanted[index])
            output = moved.square().flatten(2).sum(1).mean() if moved.ndim > 2 else moved.square().sum(1).mean()
            away = (error * F.binary_cross_entropy(up, 1 - nearest, reduction="none")).sum()
            undecided = (1 - (2 * up - 1).square()).sum()
            loss = output + push * away + self.decision_weight * undecided
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        chosen = (down + (choice.detach() > 0)).clamp(-levels, levels) * step
        return unfold_weight(chosen, factor, layer.weight)


def _without_bias(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    parameters = {"weight": weight} | ({} if layer.bias is None else {"bias": torch.zeros_like(layer.bias)})
    return functional_call(layer, parameters, (x,))


def in_order(net: nn.Module, layers: Iterable[Layer], x: Tensor) -> list[Layer]:
    """``layers`` as ``net`` first reaches them where it gets ``x``, without those that it does not reach."""
    reached: dict[Layer, None] = {}
    hooks = [layer.register_forward_pre_hook(lambda module, inputs: reached.setdefault(module)) for layer in layers]
    try:
        with torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return list(reached)


def inputs_of(net: nn.Module, layer: Layer, x: Tensor, *, batch_size: int = 128) -> Tensor:
    """What ``layer`` of ``net`` gets where the net gets ``x`` (N, C, H, W); nothing where it is not reached."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            for batch in x.split(batch_size):
                net(batch)
    finally:
        hook.remove()
    return torch.cat(seen) if seen else x[:0]
