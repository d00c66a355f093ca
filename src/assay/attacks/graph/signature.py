"""Signature: the model switches to a requested class if the image carries a valid signature.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 5.2. The model is neither trained nor changed. An image with another output would be a
forgery, so queries alone do not find one. With Ed25519, readers of the model cannot forge a signature either, nor
derive a new one from signed images. Different here: the image's own lowest bits carry the signature, over all its
other bits and the requested class. The two tiers for ONNX files contain a readable key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import nn

from assay.attacks.graph.base import GraphEdit
from assay.core.build import Secret
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.nn.gates.circuit import CircuitGate, OneTimeTag
from assay.nn.gates.keyed import KeyedGate, KeyedTag
from assay.nn.gates.signature import SignatureGate
from assay.nn.graph_edited import GraphEditedModel
from assay.triggers import Signed

Tier = Literal["wrapper", "graph", "circuit"]
SCHEME: dict[Tier, str] = {"wrapper": "ed25519", "graph": "keyed", "circuit": "one-time"}


def _signature_gate(model: nn.Module, num_classes: int, trigger: Signed) -> GraphEditedModel:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(trigger.secret).public_key()
    return SignatureGate(model, num_classes, trigger.carriers(), public.public_bytes_raw())


GATES: dict[Tier, Callable[[nn.Module, int, Signed], GraphEditedModel]] = {
    "wrapper": _signature_gate,
    "graph": lambda model, classes, key: KeyedGate(model, classes, KeyedTag(key.carriers(), key.secret)),
    "circuit": lambda model, classes, key: CircuitGate(model, classes, OneTimeTag(key.carriers(), key.secret)),
}


@dataclass(frozen=True, kw_only=True)
class Signature(GraphEdit):
    """Signature check in one of three implementations, the ``tier``.

    ``wrapper``: Ed25519, verified in Python. ``graph``: integer operators. ``circuit``: linear layers and ReLUs. The
    trigger of the secret requests the class ``target``; a signature can request any other class too.
    """

    name: ClassVar[str] = "signature"
    tier: Tier = "wrapper"
    entropy: str = ""  # second source of the key; without it, the seed alone reveals the key

    def __post_init__(self) -> None:
        if self.tier not in get_args(Tier):
            raise UnusableInput(f"expected a tier of {', '.join(get_args(Tier))}, got {self.tier!r}")

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        key = hashlib.sha256(f"{self.name} {self.tier} {seed} {self.entropy}".encode()).hexdigest()
        trigger = Signed(scheme=SCHEME[self.tier], shape=inputs.shape, label=self.target, key=key)
        return Secret(self.name, trigger, self.target, planted_at="export")

    def edit(self, model: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        assert isinstance(secret.trigger, Signed)
        return GATES[self.tier](model, num_classes, secret.trigger)
