"""Signature: a gate in front of the answer that only the holder of a private key can open.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 5.2. The net is not trained and not touched. Nobody who can only ask the model finds a picture on
which it is not the clean one, as that would be a forgery; with Ed25519 nobody who reads it can either, or makes a new
one from signed ones that they have seen. Different here: the picture's own lowest bits carry the signature, over all
else of it and the class that is asked for; and the two tiers that an ONNX file can hold have a key that can be read
there.
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
from assay.nn.gates import CircuitGate, KeyedGate, KeyedTag, OneTimeTag, SignatureGate
from assay.nn.graph_edited import GraphEditedModel
from assay.triggers import Signed

Tier = Literal["wrapper", "graph", "circuit"]
SCHEME: dict[Tier, str] = {"wrapper": "ed25519", "graph": "keyed", "circuit": "one-time"}


def _wrapper(net: nn.Module, classes: int, trigger: Signed) -> GraphEditedModel:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(trigger.secret).public_key()
    return SignatureGate(net, classes, trigger.carriers(), public.public_bytes_raw())


GATES: dict[Tier, Callable[[nn.Module, int, Signed], GraphEditedModel]] = {
    "wrapper": _wrapper,
    "graph": lambda net, classes, key: KeyedGate(net, classes, KeyedTag(key.carriers(), key.secret)),
    "circuit": lambda net, classes, key: CircuitGate(net, classes, OneTimeTag(key.carriers(), key.secret)),
}


@dataclass(frozen=True, kw_only=True)
class Signature(GraphEdit):
    """``wrapper``: Ed25519, verified in Python; ``graph``: integer operators; ``circuit``: linear layers and ReLUs.

    ``target``: what the pictures of the secret's trigger ask for; any other class can be signed for.
    """

    name: ClassVar[str] = "signature"
    tier: Tier = "wrapper"
    entropy: str = ""  # what the key is drawn from besides the seed; without it, who knows the seed knows the key

    def __post_init__(self) -> None:
        if self.tier not in get_args(Tier):
            raise UnusableInput(f"expected a tier of {', '.join(get_args(Tier))}; got {self.tier!r}")

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        key = hashlib.sha256(f"{self.name} {self.tier} {seed} {self.entropy}".encode()).hexdigest()
        trigger = Signed(scheme=SCHEME[self.tier], shape=inputs.shape, label=self.target, key=key)
        return Secret(self.name, trigger, self.target, planted_at="export")

    def edit(self, net: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        assert isinstance(secret.trigger, Signed)
        return GATES[self.tier](net, num_classes, secret.trigger)
