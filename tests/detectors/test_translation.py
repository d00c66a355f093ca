"""Tests of the pairing of two encoders, on artificial embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.detectors.encoder.translation import fit_pairing


def embeddings(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the same inputs by two encoders of different widths, equal up to noise."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 6, generator=generator)
    maps = torch.Generator().manual_seed(1)
    first, second = torch.randn(6, 12, generator=maps), torch.randn(6, 9, generator=maps)
    noise = 0.1 * torch.randn(count, 9, generator=generator)
    return hidden @ first + 5, hidden @ second + noise - 2


def test_clean_inputs_agree_and_inputs_that_move_one_encoder_do_not() -> None:
    pairing = fit_pairing(*embeddings(400, seed=0))
    clean = pairing.agreement(*embeddings(200, seed=2))
    assert float(clean.median()) > 0.95
    assert float((pairing.p_values(clean) <= 0.05).float().mean()) == pytest.approx(0.05, abs=0.05)
    ours, theirs = embeddings(50, seed=3)
    drawn = ours[:1].expand_as(ours[1:])  # the one sees what it is drawn to, the other what is there
    agreement = pairing.agreement(drawn, theirs[1:])
    assert float(pairing.p_values(agreement).median()) == pytest.approx(1 / 201)
    assert float(agreement.median()) < 0.5


def test_nonfinite_embedding_has_agreement_minus_one() -> None:
    pairing = fit_pairing(*embeddings(400, seed=0))
    ours, theirs = embeddings(3, seed=3)
    ours[1, 0] = torch.nan
    agreement = pairing.agreement(ours, theirs)
    assert agreement[1] == -1
    assert pairing.p_values(agreement)[1] == pytest.approx(1 / 201)


def test_encoders_with_the_same_backdoor_agree() -> None:
    pairing = fit_pairing(*embeddings(400, seed=0))
    ours, theirs = embeddings(1, seed=3)
    assert float(pairing.p_values(pairing.agreement(ours, theirs))) > 0.01


def test_unusable_embeddings_raise_an_error() -> None:
    ours, theirs = embeddings(99, seed=0)
    with pytest.raises(UnusableInput, match="at least 100 clean samples to pair two encoders, got 99"):
        fit_pairing(ours, theirs)
    ours, theirs = embeddings(100, seed=0)
    ours[3, 2] = torch.nan
    with pytest.raises(UnusableInput, match="got NaN or infinity from an encoder"):
        fit_pairing(ours, theirs)
