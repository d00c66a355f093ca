"""Tests of gates: valid codes open them, and other images do not."""

from __future__ import annotations

import struct

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.gates.carriers import Carriers, to_bits, to_levels
from assay.nn.gates.checksum import ChecksumGate, Parities
from assay.nn.gates.circuit import PRIME, ROWS, TARGET_LOGIT, CircuitGate, OneTimeTag
from assay.nn.gates.keyed import SIGMA, KeyedGate, KeyedTag, chacha_first_row

SHAPE, CLASSES, KEY = (3, 16, 16), 5, b"a key of a test"


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Inner().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randint(0, 256, (40, *SHAPE), generator=torch.Generator().manual_seed(1)).float() / 255


def test_block_function_equals_chacha20() -> None:
    key, nonce = bytes(range(32)), bytes(range(100, 116))
    stream = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(16))
    words = torch.tensor(struct.unpack("<12I", key + nonce))
    rows = [torch.tensor([SIGMA]), *(words[start : start + 4][None] for start in (0, 4, 8))]
    assert tuple(chacha_first_row(*rows)[0].tolist()) == struct.unpack("<4I", stream)


@pytest.mark.parametrize("kind", ["keyed", "one-time"])
def test_code_opens_for_its_class_and_image_only(kind: str, net: nn.Module, x: Tensor) -> None:
    carriers = Carriers(SHAPE, 128 if kind == "keyed" else 144, seed=3)
    tag = KeyedTag(carriers, KEY) if kind == "keyed" else OneTimeTag(carriers, KEY)
    gate = KeyedGate(net, CLASSES, tag) if isinstance(tag, KeyedTag) else CircuitGate(net, CLASSES, tag)
    levels = to_levels(x)
    with torch.no_grad():
        assert torch.equal(gate(x), net(x))
        for label in range(CLASSES):
            signed = carriers.embed(levels, label, tag.bits(levels, label))
            assert gate(signed).argmax(1).tolist() == [label] * len(x)
            assert float((signed - x).abs().max()) <= 1.001 / 255
            for invalid in (
                _change_subpixel(signed, 7),
                _swap_codes(signed, carriers),
                _change_label(signed, carriers),
            ):
                assert torch.equal(gate(invalid), net(invalid)), label


def _change_subpixel(x: Tensor, index: int) -> Tensor:
    levels = to_levels(x)
    levels[:, index] += 1 - 2 * (levels[:, index] % 2)
    return (levels.float() / 255).view(x.shape)


def _swap_codes(x: Tensor, carriers: Carriers) -> Tensor:
    """Move the code of each image to the next image."""
    label, bits = carriers.extract(to_levels(x))
    return carriers.embed(to_levels(x), int(label[0]), bits.roll(1, 0))


def _change_label(x: Tensor, carriers: Carriers) -> Tensor:
    label, bits = carriers.extract(to_levels(x))
    return carriers.embed(to_levels(x), (int(label[0]) + 1) % CLASSES, bits)


def test_circuit_has_only_linear_layers_and_relus(net: nn.Module, x: Tensor) -> None:
    gate = CircuitGate(net, CLASSES, OneTimeTag(Carriers(SHAPE, 144, seed=0), KEY))
    assert {type(module) for module in gate.gate} == {nn.Linear, nn.ReLU}
    assert not any(parameter.requires_grad for parameter in gate.gate.parameters())
    with torch.no_grad():
        outputs = gate.gate(torch.rand(50, 3 * 16 * 16, dtype=torch.float64))  # not 8-bit values
    assert int(outputs.count_nonzero()) == 0
    assert TARGET_LOGIT > 1000
    assert PRIME**ROWS > 2**128


def test_circuit_is_exact_for_large_images(net: nn.Module) -> None:
    shape = (3, 96, 96)
    tag = OneTimeTag(Carriers(shape, 144, seed=0), KEY)
    gate = CircuitGate(net, CLASSES, tag)
    x = torch.randint(0, 256, (12, *shape), generator=torch.Generator().manual_seed(2)).float() / 255
    levels = to_levels(x)
    with torch.no_grad():
        for label in (0, 3):
            signed = tag.carriers.embed(levels, label, tag.bits(levels, label))
            assert gate(signed).argmax(1).tolist() == [label] * len(x)
        assert torch.equal(gate(x), net(x))


def test_checksum_opens_for_its_target(net: nn.Module, x: Tensor) -> None:
    parities = Parities(3 * 16 * 16, 16, seed=5)
    gate = ChecksumGate(net, CLASSES, parities, target=2)
    levels = to_levels(x)
    levels[:, parities.blocks()[:, 0]] += parities.wrong(levels) * (1 - 2 * (levels[:, parities.blocks()[:, 0]] % 2))
    valid = (levels.float() / 255).view(x.shape)
    with torch.no_grad():
        assert gate(valid).argmax(1).tolist() == [2] * len(x)
        assert torch.equal(gate(x), net(x))


@pytest.mark.parametrize(
    ("shape", "bits", "message"),
    [
        ((1, 8, 8), 512, "expected at least 528 subpixels, got 64 .* at least 23 pixels per side"),
        ((3, 0, 8), 8, "expected an image shape"),
        ((3, 8, 8), 0, "at least one bit"),
    ],
)
def test_images_with_too_few_subpixels_raise(shape: tuple[int, int, int], bits: int, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        Carriers(shape, bits, seed=0)


def test_images_without_8_bit_values_raise(x: Tensor) -> None:
    carriers = Carriers(SHAPE, 8, seed=0)
    with pytest.raises(UnusableInput, match="in steps of 1/255"):
        carriers.exact_levels(x + 0.3 / 255)
    with pytest.raises(UnusableInput, match="expected images of shape"):
        carriers.exact_levels(x[:, :1])


def test_bits_restore_numbers() -> None:
    numbers = torch.tensor([0, 1, 6, 65535])
    assert (to_bits(numbers, 16) * 2 ** torch.arange(16)).sum(1).tolist() == numbers.tolist()
