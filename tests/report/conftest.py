"""Made-up audits that fill every part of every report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from assay.core.finding import Evidence, Finding, Outcome
from assay.core.result import Audit, ModelInfo, NullInfo, QuickScope, VariantOutcome, VariantResult

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HOSTILE = "<script>document.title='owned'</script>\"'&\u202egpj.exe\x00\x1b[31m\udcff" + "א" * 20 + "x" * 5000
LEFT_OUT = ("full/universal-shift", "full/graph", "int8/neural-cleanse")  # of a quick audit; the first one abstained
VARIANTS = (
    VariantResult("full", "as given", 0.917, 1.0),
    VariantResult("int8", "int8 weights and activations, per channel", 0.914, 0.987),
    VariantResult("pruned", "half of the weights set to zero by magnitude", 0.902, 0.961),
    VariantResult(
        "2:4",
        "two of every four weights set to zero",
        0.41,
        0.43,
        VariantOutcome.BROKEN,
        "pruning broke the model: accuracy is 41 %",
    ),
)


def random_images(rng: np.random.Generator, count: int = 6, size: int = 32) -> np.ndarray:
    """Return images (count, 3, size, size) of smooth colored shapes."""
    y, x = np.mgrid[0:size, 0:size] / size
    images = []
    for _ in range(count):
        ground, shape = rng.uniform(0.2, 0.9, (2, 3, 1, 1))
        cy, cx, radius = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.35)
        inside = ((y - cy) ** 2 + (x - cx) ** 2 < radius**2).astype(float)
        images.append(ground * (1 - inside) * (0.6 + 0.4 * y) + shape * inside)
    return (np.stack(images) + rng.normal(0, 0.02, (count, 3, size, size))).clip(0, 1).astype(np.float32)


def patch_evidence(rng: np.random.Generator, target: int, sizes: dict[int, float]) -> Evidence:
    """Return the evidence of a reconstructed corner patch."""
    mask = np.zeros((32, 32), np.float32)
    mask[26:31, 26:31] = rng.uniform(0.7, 1, (5, 5))
    trigger = rng.uniform(0, 1, (3, 32, 32)).astype(np.float32)
    before = random_images(rng)
    after = before * (1 - mask) + trigger * mask
    numbers = {"success_rate": 0.991, "mask_l1": 21.4, "steps": 150, "family": "patch"}
    predictions = (0, 1, 2, 4, 5, 6), (target,) * 5 + (7,)
    return Evidence(numbers, {**sizes, target: 21.4}, mask, trigger, before, after, *predictions)


def make(verdict: str = "clean", *, classes: tuple[str, ...] | None = CLASSES) -> Audit:
    """Return a complete audit with the given verdict."""
    rng = np.random.default_rng(7)
    bad = verdict == "backdoored"
    names = [variant.name for variant in VARIANTS[:3]]
    findings = tuple(item for name in names for item in _findings(rng, name, bad and name != "pruned"))
    null = None
    if verdict != "inconclusive":
        statistics = tuple(rng.gamma(4.0, 0.6, 128).tolist())
        null = NullInfo("cifar-small", 128, statistics, "clean ResNets of three sizes, trained with different seeds")
    else:
        findings = tuple(replace(item, p_value=None, null_scores=()) for item in findings)
    p_value = {"clean": 0.43, "backdoored": 1 / 129}.get(verdict)
    return Audit(
        verdict=verdict,  # type: ignore[arg-type]
        reason={
            "clean": "The combined statistic is in the middle of those of 128 clean reference models.",
            "backdoored": "A patch of 5 x 5 pixels sends 99 % of all clean samples to one class, in 2 of 3 variants.",
            "inconclusive": "No reference models fit this model, so its scores cannot be calibrated.",
        }[verdict],
        p_value=p_value,
        false_alarm_rate=None if null is None else 0.05,
        statistic={"clean": 2.4, "backdoored": 11.9}.get(verdict),
        target=3 if bad else None,
        strongest="full/neural-cleanse" if bad else None,
        model=ModelInfo(
            "models/resnet20.safetensors",
            "3f" * 32,
            "safetensors",
            "image",
            10,
            None,
            "resnet20-cifar",
            classes,
            shape=(3, 32, 32),
        ),
        findings=findings,
        variants=VARIANTS,
        limits=(
            "The audit did not search for triggers over more than a fifth of the image.",
            "A variant that is not listed above, for instance 4-bit weights, may behave differently.",
            "An attacker with knowledge of this audit may have hidden the backdoor from it.",
        ),
        data_name="data/cifar10",
        data_samples=512,
        null=null,
        seconds=47.3,
        seed=0,
        version="0.1.0",
        command="assay audit models/resnet20.safetensors --data data/cifar10 --budget 60 --seed 0",
        notes=("the input size is a guess: 3 x 32 x 32",),
    )


def _findings(rng: np.random.Generator, variant: str, bad: bool) -> list[Finding]:
    sizes = {index: float(value) for index, value in enumerate(rng.uniform(48, 120, 10))}
    target = 3 if bad else int(min(sizes, key=lambda index: sizes[index]))
    evidence = patch_evidence(rng, target, sizes) if bad else Evidence({"success_rate": 0.97}, sizes)
    nulls = [tuple(rng.normal(0, 1, 128).tolist()) for _ in range(2)]
    score, p = (6.8, 1 / 129) if bad else (0.4, 0.37)
    return [
        Finding(
            "neural-cleanse", Outcome.SCORED, variant, "", score, p, target, "AML.T0018.000", 9.81, evidence, nulls[0]
        ),
        Finding(
            "channel-lipschitz",
            Outcome.SCORED,
            variant,
            "",
            0.31,
            0.41,
            None,
            "AML.T0018.000",
            0.12,
            Evidence(),
            nulls[1],
        ),
        Finding(
            "universal-shift", Outcome.ABSTAINED, variant, "needs gradients, which a model in onnx format does not give"
        ),
    ]


@pytest.fixture
def make_audit() -> Callable[..., Audit]:
    """Return the function that builds an audit."""
    return make


@pytest.fixture
def quick() -> Audit:
    """Return a quick audit that found nothing."""
    base = make("clean")
    findings = tuple(item for item in base.findings if item.variant == "full")
    scope = QuickScope(("full/neural-cleanse", "full/channel-lipschitz"), LEFT_OUT)
    return replace(
        base,
        verdict="inconclusive",
        variants=VARIANTS[:1],
        findings=findings,
        quick=scope,
        limits=("Not looked at: x.",),
    )


@pytest.fixture(params=["clean", "backdoored", "inconclusive"])
def audit(request: pytest.FixtureRequest) -> Audit:
    """Return an audit with each verdict."""
    return make(request.param)


@pytest.fixture
def hostile() -> Audit:
    """Return an audit with hostile content in every text and number from a model."""
    base = make("backdoored", classes=tuple(f"{HOSTILE}{index}" for index in range(10)))
    numbers = {HOSTILE: HOSTILE, "worst": float("nan"), "size": np.float32(3.5)}
    findings = tuple(
        replace(
            item,
            detector=HOSTILE,
            variant=HOSTILE,
            reason=HOSTILE,
            score=float("inf") if item.outcome.status != "ok" else item.score,
            evidence=replace(item.evidence, numbers=numbers, per_class={0: float("inf"), 3: 1.0}),
        )
        for item in base.findings
    )
    model = replace(base.model, path=f"/tmp/{HOSTILE}", planted=HOSTILE, format=HOSTILE, arch=HOSTILE)
    variant = VariantResult(HOSTILE, HOSTILE, float("nan"), None)
    return replace(
        base,
        reason=HOSTILE,
        model=model,
        findings=findings,
        variants=(variant, replace(variant, name="other", outcome=VariantOutcome.UNAVAILABLE, reason=HOSTILE)),
        limits=(HOSTILE,),
        data_name=HOSTILE,
        command=HOSTILE,
        notes=(HOSTILE,),
        null=replace(base.null, name=HOSTILE, description=HOSTILE),
    )
