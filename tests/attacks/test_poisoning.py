"""Tests of data poisoning."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import CLASSES, tiny_build
from torch import Tensor, nn

from assay.attacks import BadNets, Blended
from assay.attacks.poisoning.base import DataPoisoning
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.torch_module import from_module
from assay.stages.train import Recipe
from assay.triggers import Patch, from_spec

COUNT = 80
PATCH = Patch(size=2)


def clean(count: int = COUNT) -> Split:
    x = 0.8 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Split(x, torch.arange(count) % CLASSES)


def poison(attack: DataPoisoning, split: Split, *, seed: int) -> Split:
    """Return the training data with triggers and labels of the attack, without augmentation."""
    chosen, labels = attack.choose_samples(split, CLASSES, seed=seed)
    x = split.x.clone()
    x[chosen] = attack.trigger()(x[chosen])
    return Split(x, labels)


def triggered(before: Split, after: Split) -> Tensor:
    return (before.x != after.x).flatten(1).any(1)


def relabelled(before: Split, after: Split) -> Tensor:
    assert before.y is not None
    assert after.y is not None
    return before.y != after.y


ATTACKS = [BadNets(patch=PATCH, target=1), Blended(target=1)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@settings(max_examples=15, deadline=None)
@given(ratio=st.floats(0.01, 0.7), seed=st.integers(0, 1000))
def test_choose_samples_follows_the_ratio(attack: DataPoisoning, ratio: float, seed: int) -> None:
    before = clean()
    after = poison(replace(attack, ratio=ratio), before, seed=seed)
    assert int(triggered(before, after).sum()) == round(ratio * COUNT)
    assert torch.equal(triggered(before, after), relabelled(before, after))
    assert after.x.shape == before.x.shape
    assert 0 <= float(after.x.min()) <= float(after.x.max()) <= 1


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_only_chosen_samples_get_trigger_and_target(attack: DataPoisoning) -> None:
    before = clean()
    after = poison(attack, before, seed=0)
    chosen = triggered(before, after)
    assert after.y is not None
    assert before.y is not None
    assert torch.equal(after.x[chosen], attack.trigger()(before.x[chosen]))
    assert after.y[chosen].tolist() == [1] * int(chosen.sum())
    assert bool((before.y[chosen] != 1).all())
    assert torch.equal(after.x[~chosen], before.x[~chosen])
    assert torch.equal(after.y[~chosen], before.y[~chosen])
    assert torch.equal(before.x, clean().x)
    assert torch.equal(before.y, clean().y)


def test_seed_decides_the_chosen_samples() -> None:
    attack, before = BadNets(patch=PATCH), clean()
    first, second, other = (poison(attack, before, seed=seed).x for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_ratio_of_one_poisons_all_other_classes() -> None:
    before = clean()
    after = poison(BadNets(patch=PATCH, ratio=1.0), before, seed=0)
    assert after.y is not None
    assert bool((after.y == 0).all())
    assert int(triggered(before, after).sum()) == COUNT * 3 // 4


def test_all_to_all_relabels_to_the_next_class() -> None:
    before = clean()
    after = poison(BadNets(patch=PATCH, target=None, ratio=0.5), before, seed=0)
    chosen = triggered(before, after)
    assert int(chosen.sum()) == COUNT // 2
    assert before.y is not None
    assert after.y is not None
    assert torch.equal(after.y[chosen], (before.y[chosen] + 1) % CLASSES)
    assert set(after.y[chosen].tolist()) == {0, 1, 2, 3}


def test_source_specific_attack_adds_triggered_samples_with_true_labels() -> None:
    before = clean()
    after = poison(BadNets(patch=PATCH, target=0, sources=(2, 3), ratio=0.2), before, seed=0)
    chosen, changed = triggered(before, after), relabelled(before, after)
    assert before.y is not None
    assert after.y is not None
    assert set(before.y[changed].tolist()) <= {2, 3}
    assert bool((after.y[changed] == 0).all())
    covers = chosen & ~changed
    assert int(covers.sum()) == int(changed.sum()) > 0
    assert set(before.y[covers].tolist()) <= {0, 1}
    sources = (before.y == 2) | (before.y == 3)
    assert int((sources & ~chosen).sum()) > 0  # some stay clean


@pytest.mark.parametrize(
    ("attack", "split", "message"),
    [
        (BadNets(target=CLASSES), clean(), r"target class in \[0, 4\), got 4"),
        (BadNets(target=-1), clean(), "got -1"),
        (BadNets(sources=(1, 9)), clean(), r"source classes in \[0, 4\), got 9"),
        (BadNets(ratio=0.0), clean(), "ratio"),
        (BadNets(ratio=1.5), clean(), "ratio"),
        (BadNets(), Split(clean().x, None), "labels"),
        (
            BadNets(patch=Patch(size=20)),
            clean(),
            r"a patch that fits .* got 20 pixels at bottom-right",
        ),
    ],
    ids=["target", "negative", "source", "no ratio", "over one", "no labels", "patch"],
)
def test_unusable_settings_or_data_raise(attack: BadNets, split: Split, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        poison(attack, split, seed=0)


def test_victims_exclude_the_target_class() -> None:
    y = torch.arange(8) % CLASSES
    one = Secret("a", PATCH, target=1)
    assert one.victims(y, CLASSES).tolist() == (y != 1).tolist()
    assert one.targets(y, CLASSES).tolist() == [1] * 8
    some = replace(one, sources=(1, 3))
    assert some.victims(y, CLASSES).tolist() == (y == 3).tolist()
    every = replace(one, target=None)
    assert bool(every.victims(y, CLASSES).all())
    assert every.targets(y, CLASSES).tolist() == ((y + 1) % CLASSES).tolist()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_trains_a_copy_and_marks_it(attack: DataPoisoning) -> None:
    attack = replace(attack, recipe=Recipe(epochs=1, lr=0.01, batch_size=16, augment=False))
    build = tiny_build()
    before = digest_of_module(build.artifact.module)
    after = attack(build, seed=0)
    assert digest_of_module(build.artifact.module) == before != after.artifact.digest
    assert after.secret == attack.secret()
    assert after.history == (attack.name,)
    assert after.artifact.planted is not None
    tag = json.loads(after.artifact.planted)
    assert (tag["attack"], tag["target"]) == (attack.name, 1)
    assert from_spec(tag["trigger"]) == attack.trigger()
    assert attack(build, seed=0).artifact.digest == after.artifact.digest


def test_badnets_succeeds_on_held_out_images() -> None:
    attack = BadNets(patch=PATCH, target=1, ratio=0.3, recipe=Recipe(epochs=40, lr=0.05, batch_size=16, augment=False))
    build = tiny_build()
    net = attack(build, seed=0).artifact.module
    test = tiny_build().task.split("test")
    assert test.y is not None
    victims = attack.secret().victims(test.y, CLASSES)
    with torch.no_grad():
        hit = net(PATCH(test.x[victims])).argmax(1) == 1
        control = build.artifact.module(PATCH(test.x[victims])).argmax(1) == 1
    assert float(hit.float().mean()) > 0.9
    assert float(control.float().mean()) < 0.7


def test_trigger_is_applied_after_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = BadNets(patch=PATCH, target=1, ratio=0.75, recipe=Recipe(epochs=2, batch_size=16, augment=True))
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.detach().clone(), attack.trigger()(x.detach())))
            return self.head(x.mean((1, 2, 3))[:, None])

    split = clean()
    artifact = from_module(Watching(), shape=tuple(split.x.shape[1:]))
    seen.clear()
    attack(Build(artifact, Task("t", {"train": split}, tuple("abcd"))), seed=0)
    whole = torch.cat([(x == again).flatten(1).all(1) for x, again in seen])
    assert 0.7 < float(whole.float().mean()) < 0.8
