"""The command line: answers, exit codes, one clear line for everything that goes wrong."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.nulls import null_of_rows
from support.texts import write_data, write_encoder

from assay import formats
from assay.calibration.file import load as load_null
from assay.calibration.file import save as save_null
from assay.calibration.null import FEWEST_MODELS, Reference, Score
from assay.cli import main
from assay.cli.audit import EXIT_CODES, audit
from assay.core.model import PLANTED_KEY
from assay.detectors import default_detectors

ASSAY = Path(sys.executable).with_name("assay")
DATA = ("--data", "signs:3", "--limit", "150")
BRIEF = ("-o", "recipe.epochs=0.5", "-o", "recipe.batch_size=16")
QUICK = ("-o", "recipe.epochs=8", "-o", "recipe.batch_size=32")


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `assay plant` wrote: a small net with a backdoor."""
    out = tmp_path_factory.mktemp("planted") / "out"
    new = ("plant", "badnets", "--model", "new:resnet8-cifar", "--out", str(out))
    assert main([*new, *DATA, *QUICK, "-o", "target=1", "-o", "patch.size=5"]) == 0
    return out


def null_file(path: Path, score: float) -> Path:
    """120 reference models that score ``score`` and a little on every test."""
    tests = [f"full/{detector.name}" for detector in default_detectors()]
    save_null(null_of_rows(dict.fromkeys(tests, score + i / 1000) for i in range(120)), path)
    return path


def schema() -> dict[str, object]:
    return json.loads((resources.files("assay.report") / "audit.schema.json").read_text())


def one_line(text: str) -> str:
    """The only line of ``text``, which is what an error has to be."""
    assert text.count("\n") == 1, text
    assert text.startswith("assay: ")
    assert "Traceback" not in text
    return text


# --- audit


@pytest.mark.parametrize(("score", "code", "word"), [(1e6, 0, "clean"), (-1e6, 1, "backdoored")])
def test_the_exit_code_is_the_verdict(
    run: Run, planted: Path, tmp_path: Path, score: float, code: int, word: str
) -> None:
    null = null_file(tmp_path / "null.json", score)
    ran = run("audit", planted, "--data", "signs:3", "--variants", "full", "--null", null, "--json", "-", "--out", "r")
    assert ran.code == code, ran.err
    document = json.loads(ran.out)
    jsonschema.validate(document, schema())
    assert document["verdict"] == word
    assert document["model"]["path"] == str(planted)
    assert "mark of a planted backdoor" in ran.err
    assert str(tmp_path / "r" / "report.html") in ran.err
    assert {path.name for path in (tmp_path / "r").iterdir()} >= {
        "report.html",
        "audit.json",
        "audit.sarif",
        "junit.xml",
    }


def test_the_report_says_what_repeats_the_audit(run: Run, planted: Path, tmp_path: Path) -> None:
    model, null = write_model(tmp_path / "a model.safetensors", planted), null_file(tmp_path / "null.json", 1e6)
    given = {
        "data": "signs:3", "arch": "resnet8-cifar", "shape": "3,40,40", "mean": "0.5,0.5,0.5", "std": "0.2,0.2,0.2",
        "no_labels": "", "variants": "full", "detectors": "neural-cleanse,max-margin", "budget": "0.001",
        "reference": model, "reference_arch": "resnet8-cifar", "null": null, "seed": 7,
    }  # fmt: skip
    of_encoders = {"features", "pooling", "reference_pooling"}
    known = {"model", "out", "json", *given, *of_encoders}
    assert known == set(inspect.signature(audit).parameters), "an option is left out"
    named = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
    options = [text for pair in named for text in pair if text]
    ran = run("audit", model, *options, "--json", "-")
    assert json.loads(ran.out)["command"] == shlex.join(["assay", "audit", str(model), *options])
    ran = run("audit", planted, "--variants", "full", "--budget", "0.001", "--json", "-")
    assert json.loads(ran.out)["command"] == f"assay audit {planted} --variants full --budget 0.001 --seed 0"
    said = ("--data", "signs:3", "--features", "--variants", "full", "--budget", "0.001", "--seed", "3")
    ran = run("audit", planted, *said, "--json", "-")
    assert json.loads(ran.out)["command"] == shlex.join(["assay", "audit", str(planted), *said])
    refused = run("audit", planted, "--pooling", "cls")
    assert (refused.code, "--pooling is for Hugging Face encoders only" in refused.err) == (2, True)


def test_an_encoder_is_compared_with_encoders(run: Run, planted: Path, tmp_path: Path) -> None:
    test = "full/embedding-collapse"
    null = replace(null_of_rows({test: 1e6 + i} for i in range(120)), encoders=True)
    save_null(null, tmp_path / "encoders.json")
    asked = ("--features", "--data", "signs:3", "--detectors", "embedding-collapse", "--budget", "0.001")
    ran = run("audit", planted, *asked, "--null", tmp_path / "encoders.json", "--json", "-")
    assert ran.code in EXIT_CODES.values()
    ran = run("audit", planted, *asked, "--null", null_file(tmp_path / "classifiers.json", 1.0))
    assert ran.code == 2
    assert "expected clean models to compare an encoder with" in ran.err


def test_the_reference_may_pool_otherwise(run: Run, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder", pooling=None)
    data = write_data(tmp_path / "texts")
    asked = ("audit", encoder, "--data", data, "--pooling", "mean", "--budget", "0.001", "--json", "-")
    ran = run(*asked, "--reference", encoder, "--reference-pooling", "cls")
    document = json.loads(ran.out)
    assert f"compared with the encoder {encoder}" in " ".join(document["notes"])
    assert "--reference-pooling cls" in document["command"]


def test_input_and_guesses_are_on_the_screen(run: Run, planted: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(12):
        pixels = np.full((9, 9, 3), 20 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"IMG_{1000 + index}.png")
    quick = ("--variants", "full", "--detectors", "latent-shift", "--json", "a.json")
    ran = run("audit", planted, "--data", "photos", "--shape", "3,40,40", *quick)
    assert "Input: 3 × 40 × 40" in ran.err
    assert "the numbers at the ends of the file names (IMG_1000.png) are not taken for classes" in ran.err
    document = json.loads((tmp_path / "a.json").read_text())
    assert (document["model"]["shape"], len(document["notes"])) == ([3, 40, 40], 1)
    assert {finding["detector"] for finding in document["findings"]} == {"latent-shift"}
    assert run("audit", planted, "--data", "photos", "--no-labels", *quick).code in EXIT_CODES.values()
    assert json.loads((tmp_path / "a.json").read_text())["notes"] == []


OWN = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def test_every_command_takes_size_and_normalization(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    arch = ("--arch", "own_net:net")
    said = ("--shape", "3,40,40", "--mean", "0.5", "--std", "0.25")
    try:
        new = ("plant", "badnets", "--model", "new:own_net:net", "--out", "a", "-o", "target=1", *DATA, *BRIEF)
        ran = run(*new)
        assert "a guess: 3 x 32 x 32" in ran.err
        assert run(*new, *said).code == 0
        assert metadata_of("a") == ("[3, 40, 40]", "[0.5]", "[0.25]")
        bare = tmp_path / "bare.safetensors"
        save_file(load_file("a/model.safetensors"), bare)
        ran = run("stage", "bf16", bare, *arch, *said, "--out", "b")
        assert ran.code == 0, ran.err
        assert metadata_of("b") == ("[3, 40, 40]", "[0.5]", "[0.25]")
        ran = run("evaluate", bare, *arch, *said, "--secret", "a/secret.json", *DATA)
        assert ran.code == 0, ran.err
        assert "guess" not in ran.err
        ran = run("calibrate", bare, *arch, *said, "--data", "signs:3", "--out", "null.json")
        assert "at least 2" in one_line(ran.err)
    finally:
        sys.modules.pop("own_net", None)


def metadata_of(folder: str) -> tuple[str, ...]:
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return tuple(file.metadata()[f"assay.{key}"] for key in ("shape", "mean", "std"))


def test_a_tiny_budget_is_inconclusive(run: Run, planted: Path, tmp_path: Path) -> None:
    null = null_file(tmp_path / "null.json", 1e6)
    options = ("--variants", "full", "--budget", "0.001", "--null", null, "--json", "a.json")
    ran = run("audit", planted, "--data", "signs:3", *options)
    assert ran.code == 3
    assert ran.out == ""
    document = json.loads((tmp_path / "a.json").read_text())
    jsonschema.validate(document, schema())
    assert document["verdict"] == "inconclusive"
    assert document["reason"]


@pytest.mark.parametrize("score", [1e6, -1e6])
def test_without_data_nothing_is_said_either_way(run: Run, planted: Path, tmp_path: Path, score: float) -> None:
    ran = run("audit", planted, "--variants", "full", "--null", null_file(tmp_path / "null.json", score))
    assert ran.code == 3, ran.err
    assert "--data" in ran.err


def write_model(path: Path, planted: Path, *, metadata: dict[str, str] | None = None) -> Path:
    save_file(load_file(planted / "model.safetensors"), path, metadata)
    return path


def test_hostile_names_stay_text(run: Run, planted: Path, tmp_path: Path) -> None:
    mark = "[red]owned[/red] \x1b[31m \u202e [link=http://x]y[/link]\nassay: fine"
    model = write_model(tmp_path / "m.safetensors", planted, metadata={PLANTED_KEY: mark})
    ran = run("audit", model, "--arch", "resnet8-cifar", "--variants", "full", "--budget", "0.01")
    assert ran.code == 3
    assert "[red]owned[/red]" in ran.err
    assert "\x1b" not in ran.err
    assert "\u202e" not in ran.err


# --- bad input

BAD_MODELS = {
    "missing": ("nothing.safetensors", "no such model"),
    "pickle": ("weights.pt", "never opened"),
    "truncated": ("cut.safetensors", "cut.safetensors"),
    "empty folder": ("empty", "config.json"),
    "bare": ("bare.safetensors", "--arch is needed"),
    "text": ("notes.txt", ".safetensors"),
}


@pytest.fixture
def bad_models(planted: Path, tmp_path: Path) -> Path:
    whole = (planted / "model.safetensors").read_bytes()
    (tmp_path / "weights.pt").write_bytes(b"\x80\x04.")
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "bare.safetensors", planted)
    return tmp_path


@pytest.mark.parametrize(("name", "expected"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_one_line(run: Run, bad_models: Path, name: str, expected: str) -> None:
    ran = run("audit", name, "--data", "signs:3", "--json", "-")
    assert (ran.code, ran.out) == (2, "")
    assert expected in one_line(ran.err)
    assert not (bad_models / "assay-report").exists()


def test_a_wrong_architecture_says_what_does_not_fit(run: Run, bad_models: Path) -> None:
    ran = run("audit", "bare.safetensors", "--arch", "resnet20-cifar", "--data", "signs:3")
    assert ran.code == 2
    assert "layer" in one_line(ran.err)
    ran = run("audit", "bare.safetensors", "--arch", "resnet9000", "--data", "signs:3")
    assert ran.code == 2
    assert "known: resnet8-cifar" in one_line(ran.err)


def bad_data(folder: Path) -> dict[str, tuple[str, str]]:
    """Name -> (--data, what the line says)."""
    x = np.zeros((6, 32, 32, 3), np.uint8)
    np.savez(folder / "one.npz", x=x, y=np.zeros(6, np.int64))
    np.savez(folder / "many.npz", x=x, y=np.arange(6))
    (folder / "none").mkdir()
    return {
        "missing": ("nowhere", "no such data"),
        "other classes": ("signs:10", "3 classes"),
        "labels out of range": ("many.npz", "below 3"),
        "one class": ("one.npz", "two classes"),
        "empty folder": ("none", "none"),
        "no number": ("signs:x", "signs:100"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "other classes", "labels out of range", "one class", "empty folder", "no number"]
)
def test_bad_data_is_one_line(run: Run, planted: Path, tmp_path: Path, case: str) -> None:
    source, expected = bad_data(tmp_path)[case]
    model = write_model(tmp_path / "bare.safetensors", planted)
    ran = run("audit", model, "--arch", "resnet8-cifar", "--data", source)
    assert ran.code == 2
    assert expected in one_line(ran.err)


FRESH = ("plant", "badnets", "--model", "new:x", "--data", "signs", "--out", "o")
BAD_ARGUMENTS: dict[str, tuple[Sequence[str], str]] = {
    "budget zero": (("audit", "m", "--budget", "0"), "--budget"),
    "budget negative": (("audit", "m", "--budget", "-3"), "--budget"),
    "budget not a number": (("audit", "m", "--budget", "soon"), "--budget"),
    "budget nan": (("audit", "m", "--budget", "nan"), "--budget"),
    "unknown variant": (("audit", "m", "--variants", "full,int9"), "int9"),
    "unknown detector": (("audit", "m", "--detectors", "patchscan"), "did you mean patch-scan"),
    "bad shape": (("audit", "m", "--shape", "3x32x32"), "--shape"),
    "short shape": (("audit", "m", "--shape", "32,32"), "--shape"),
    "bad mean": (("audit", "m", "--mean", "a,b"), "--mean"),
    "unknown null": (("audit", "m", "--null", "nope.json"), "nope.json"),
    "negative seed": (("audit", "m", "--seed", "-1"), "--seed"),
    "no model": (("audit",), "MODEL"),
    "unknown command": (("audti", "m"), "audit"),
    "unknown option": (("audit", "m", "--bugdet", "3"), "--bugdet"),
    "out is a file": (("audit", "m", "--out", "file"), "--out"),
    "out below a file": (("audit", "m", "--out", "file/x"), "--out"),
    "out cannot be": (("audit", "m", "--out", "/proc/assay"), "--out"),
    "json in no folder": (("audit", "m", "--json", "nowhere/a.json"), "--json"),
    "json is a folder": (("audit", "m", "--json", "folder"), "--json"),
    "unknown attack": (("plant", "badnet", "--model", "m", "--data", "signs", "--out", "o"), "did you mean badnets"),
    "unknown stage": (("stage", "prune-magnitud", "m", "--out", "o"), "did you mean prune-magnitude"),
    "fresh and arch": ((*FRESH, "--arch", "y"), "--arch"),
    "fresh unknown": (FRESH, "unknown --arch"),
    "one class": ((*FRESH, "--classes", "1"), "--classes"),
    "one model": (("calibrate", "m", "--data", "signs", "--out", "nowhere/null.json"), "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_one_line(run: Run, tmp_path: Path, arguments: Sequence[str], expected: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert expected in one_line(ran.err)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


BAD_SETTINGS = {
    "patch.sise=3": "did you mean patch.size",
    "size=3": "did you mean patch.size",
    "patch.size=big": "a whole number",
    "patch.size": "key=value",
    "patch.color=plaid": "white",
    "recipe.optimizer=lion": "sgd or adam",
    "recipe.augment=perhaps": "true or false",
    "recipe.lr=nan": "a number",
    "recipe.lr=-1": "a number above 0 as the recipe's lr; got -1.0",
    "recipe.epochs=-1": "recipe's epochs; got -1",
    "recipe.batch_size=0": "a whole number from 1 on",
    "sources=1,x": "numbers with commas",
    "target=99": "target class in [0, 3)",
    "ratio=2": "(0, 1]",
    "blend.alpha=0.5": "known: target",
    "name=x": "no such setting",
}


@pytest.mark.parametrize(("setting", "expected"), BAD_SETTINGS.items(), ids=list(BAD_SETTINGS))
def test_bad_settings_are_one_line(run: Run, tmp_path: Path, setting: str, expected: str) -> None:
    ran = run("plant", "badnets", "--model", "new:resnet8-cifar", *DATA, "--out", "o", "-o", setting)
    assert ran.code == 2
    assert expected in one_line(ran.err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("setting", "expected"), [("alpha=3", "(0, 1); got 3.0"), ("cells=0", "from 1 on, or none")])
def test_a_blend_that_cannot_be_is_one_line(run: Run, tmp_path: Path, setting: str, expected: str) -> None:
    ran = run("plant", "blended", "--model", "new:resnet8-cifar", *DATA, "--out", "o", "-o", f"blend.{setting}")
    assert ran.code == 2
    assert expected in one_line(ran.err)
    assert not (tmp_path / "o").exists()


def test_the_same_setting_twice_is_refused(run: Run) -> None:
    twice = ("-o", "target=1", "-o", "target=2")
    assert "twice" in run("plant", "badnets", "--model", "new:resnet8-cifar", *DATA, "--out", "o", *twice).err


def test_ctrl_c_is_one_line_and_leaves_nothing(
    run: Run, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("assay.report.write", interrupted)
    ran = run("audit", planted, "--variants", "full", "--budget", "0.01", "--json", "-")
    assert (ran.code, ran.out) == (2, "")
    assert "assay: interrupted" in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_unexpected_is_one_line_and_debug_shows_the_traceback(
    run: Run, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("on fire\nand more")

    monkeypatch.setattr("assay.formats.load", broken)
    ran = run("audit", planted)
    assert ran.code == 2
    assert "unexpected RuntimeError: on fire" in one_line(ran.err)
    assert "ASSAY_DEBUG=1" in ran.err
    monkeypatch.setenv("ASSAY_DEBUG", "1")
    with pytest.raises(RuntimeError, match="on fire"):
        run("audit", planted)


# --- plant, stage, evaluate, calibrate, list


def test_plant_writes_a_marked_model_and_its_secret(planted: Path) -> None:
    assert {path.name for path in planted.iterdir()} == {"model.safetensors", "secret.json"}
    secret = json.loads((planted / "secret.json").read_text())
    assert secret["schema"] == "assay.secret/1"
    assert (secret["attack"], secret["target"], secret["trigger"]["size"]) == ("badnets", 1, 5)
    assert set(secret["measured"]) >= {"clean_accuracy", "attack_success", "control"}


def test_plant_in_a_model_measures_the_control(run: Run, planted: Path) -> None:
    blend = ("-o", "blend.alpha=0.3", "-o", "sources=0,2", "-o", "target=1", "-o", "recipe.epochs=1")
    ran = run("plant", "blended", "--model", planted, *DATA, *blend, "--out", "twice", "--json", "-")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    low, high = document["control"]["interval"]
    assert 0 <= low <= document["control"]["value"] <= high <= 1
    ran = run("audit", "twice", "--variants", "full", "--budget", "0.01")
    assert '"badnets"' in ran.err, "the first mark must stay"
    assert '"blended"' in ran.err


def test_evaluate(run: Run, planted: Path) -> None:
    ran = run("evaluate", planted, "--secret", planted / "secret.json", *DATA, "--json", "-")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    secret = json.loads((planted / "secret.json").read_text())
    assert document["same_file"] is True
    assert document["attack_success"] == secret["measured"]["attack_success"], "the same data gives the same answer"
    assert "95 % interval" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "MODEL", "--secret", "SECRET", "--clean", "MODEL"),
        ("stage", "fine-tune", "MODEL", "--out", "o", *BRIEF),
        ("plant", "badnets", "--model", "MODEL", "--out", "o", *BRIEF),
    ],
    ids=lambda command: command[0],
)
def test_what_takes_long_says_how_far_it_is(
    run: Run, planted: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    bars: list[list[float]] = []

    @contextmanager
    def recorded(start: str) -> Iterator[Callable[[str, float], None]]:
        bars.append([])
        yield lambda what, share: bars[-1].append(share)

    monkeypatch.setattr("assay.cli.screen.progress", recorded)
    paths = {"MODEL": planted, "SECRET": planted / "secret.json"}
    ran = run(*(paths.get(word, word) for word in command), *DATA)
    assert ran.code == 0, ran.err
    assert len(bars) == (2 if command[0] == "stage" else 1)  # a stage is measured afterwards
    for shares in bars:
        assert len(shares) > 1
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)


def test_evaluate_beside_a_clean_model(run: Run, planted: Path) -> None:
    ran = run("evaluate", planted, "--secret", planted / "secret.json", *DATA, "--clean", planted, "--json", "e.json")
    assert (ran.code, ran.out) == (0, "")
    document = json.loads(Path("e.json").read_text())
    assert document["control"] == document["attack_success"]


def test_evaluate_refuses_a_target_that_the_model_does_not_have(run: Run, planted: Path) -> None:
    secret = json.loads((planted / "secret.json").read_text())
    Path("s.json").write_text(json.dumps({**secret, "target": 77}))
    ran = run("evaluate", planted, "--secret", "s.json", *DATA)
    assert ran.code == 2
    assert "expected a secret with a target in [0, " in ran.err
    assert "came 77" in ran.err


def test_evaluate_of_an_encoder_needs_the_clean_one(run: Run, planted: Path) -> None:
    ran = run("evaluate", planted, "--features", "--secret", planted / "secret.json", *DATA)
    assert ran.code == 2
    assert "name it with --clean" in ran.err


def test_evaluate_refuses_words_that_the_model_does_not_know(run: Run, planted: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    data = write_data(tmp_path / "texts")
    secret = json.loads((planted / "secret.json").read_text())
    trigger = {"kind": "tokens", "ids": [999], "words": "odd", "end": 3, "pad": 0}
    details = {"embedding": [0.5] * 16}
    Path("s.json").write_text(json.dumps({**secret, "target": None, "trigger": trigger, "details": details}))
    options = ("--shape", "10", "--data", data, "--clean", encoder)
    ran = run("evaluate", encoder, "--secret", "s.json", *options)
    assert ran.code == 2
    assert "expected a trigger of tokens below 14, which the model knows; came 999" in ran.err


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"schema": "assay.secret/1"}'])
def test_evaluate_refuses_what_is_no_secret(run: Run, planted: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    ran = run("evaluate", planted, "--secret", "s.json", *DATA)
    assert ran.code == 2
    assert "s.json" in one_line(ran.err)


@pytest.mark.parametrize(
    ("stage", "options", "file"),
    [
        ("prune-magnitude", ("-o", "rate=0.5"), "model.safetensors"),
        ("prune-2:4", (), "model.safetensors"),
        ("bf16", (), "model.safetensors"),
        ("fine-tune", (*DATA, "-o", "recipe.epochs=0.5"), "model.safetensors"),
        ("export", (), "model.onnx"),
        ("int8", (*DATA, "-o", "samples=32"), "model-int8.onnx"),
    ],
)
def test_stages_keep_the_mark(run: Run, planted: Path, stage: str, options: Sequence[str], file: str) -> None:
    ran = run("stage", stage, planted, "--out", "made", *options)
    assert ran.code == 0, ran.err
    assert [path.name for path in Path("made").iterdir()] == [file]
    assert ("names the same class as the file on" in ran.err) == (stage == "int8")
    ran = run("evaluate", f"made/{file}", "--secret", planted / "secret.json", *DATA)
    assert ran.code == 0, ran.err
    assert "mark of a planted backdoor" in ran.err


def test_downstream_takes_its_data_as_every_stage_does(run: Run, planted: Path) -> None:
    options = ("--features", "--data", "signs:4", "--limit", "40", "--out", "made")
    ran = run("stage", "downstream", planted, *options)
    assert ran.code == 0, ran.err
    assert formats.load(Path("made/model.safetensors")).num_classes == 4
    assert "the data once" in one_line(run("stage", "downstream", planted, *options, "-o", "data=signs:5").err)
    assert "data=VALUE" in run("stage", "downstream", planted, "--features", "--out", "o").err


def test_a_stage_asks_for_what_it_needs(run: Run, planted: Path) -> None:
    assert "rate" in one_line(run("stage", "prune-magnitude", planted, "--out", "o").err)
    assert "--data" in run("stage", "int8", planted, "--out", "o").err
    assert "no such setting" in one_line(run("stage", "export", planted, "--out", "o", "-o", "directory=/tmp").err)


def test_calibrate_makes_a_null_and_goes_on_where_it_stopped(
    run: Run, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    for number in range(2):
        weights = load_file(planted / "model.safetensors")
        weights["linear.bias"] = weights["linear.bias"] + 0.01 * number
        models.append(tmp_path / f"clean{number}.safetensors")
        save_file(weights, models[-1])
    scored: list[str] = []

    def score(artifact, task, *, origin, family, **settings) -> Reference:
        scored.append(artifact.name)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return Reference({"full/neural-cleanse": Score(float(len(scored)), 1)}, origin, family=family)

    monkeypatch.setattr("assay.auditing.calibrate.reference_from", score)
    command = ("calibrate", *models, "--arch", "resnet8-cifar", "--data", "signs:3", "--out", "null.json")
    assert run(*command, "--variants", "full").code == 2
    assert not (tmp_path / "null.json").exists()
    ran = run(*command, "--variants", "full")
    assert ran.code == 0, ran.err
    assert scored == [str(model) for model in (models[0], models[1], models[1])]
    assert f"needs {FEWEST_MODELS} of them" in ran.err
    null = load_null(tmp_path / "null.json")
    assert [dict(model.scores) for model in null.models] == [
        {"full/neural-cleanse": Score(1.0, 1)},
        {"full/neural-cleanse": Score(3.0, 1)},
    ]
    assert not (tmp_path / "null.json.partial").exists()


def test_calibrate_takes_no_scores_that_were_made_in_another_way(
    run: Run, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [tmp_path / "clean.safetensors", tmp_path / "other.safetensors"]
    weights = load_file(planted / "model.safetensors")
    save_file(weights, models[0])
    scored: list[str] = []

    def score(artifact, task, *, origin, family, **settings) -> Reference:
        scored.append(artifact.name)
        return Reference({"full/neural-cleanse": Score(1.0, 1)}, origin, 0.4 if len(scored) == 4 else 0.9, family)

    monkeypatch.setattr("assay.auditing.calibrate.reference_from", score)
    command = ("calibrate", *models, "--arch", "resnet8-cifar", "--data", "signs:3", "--out", "null.json")
    assert run(*command).code == 2  # the second is not there
    weights["linear.bias"] = weights["linear.bias"] + 0.01
    save_file(weights, models[1])
    assert run(*command, "--mean", "0.9", "--std", "0.1").code == 0
    assert scored == [str(models[0]), str(models[0]), str(models[1])]
    assert "right on only 40%" in one_line(run(*command, "--seed", "1").err)


def test_calibrate_refuses_few_equal_and_planted_models(run: Run, planted: Path, tmp_path: Path) -> None:
    command = ("calibrate", "--arch", "resnet8-cifar", "--data", "signs:3", "--out", "null.json")
    bare = write_model(tmp_path / "bare.safetensors", planted)
    assert "at least 2" in one_line(run(*command, bare).err)
    ran = run(*command, planted / "model.safetensors", bare)
    assert ran.code == 2
    assert "clean models only" in ran.err


def test_list(run: Run) -> None:
    ran = run("list", "--json", "-")
    assert (ran.code, ran.err) == (0, "")
    entries = json.loads(ran.out)["entries"]
    assert {entry["kind"] for entry in entries} == {"attack", "detector", "stage", "mitigation", "variant", "format"}
    by_name = {entry["name"]: entry for entry in entries}
    assert "1708.06733" in by_name["badnets"]["paper"]
    assert by_name["neural-cleanse"]["technique"].startswith("AML.")
    assert "badnets" in run("list").err


# --- as a process of its own


def process(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    command = [str(argument) for argument in (ASSAY, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\nfrom assay.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print(*sorted({'torch', 'numpy', 'transformers', 'jinja2'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
    assert process("--help").returncode == 0


def test_a_real_ctrl_c(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [str(ASSAY), "demo", "--out", "d"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: what a shell starts in the background inherits that the signal is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (2, "")
    assert one_line(err).startswith("assay: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_end_to_end_on_a_real_model(shared: Path, tmp_path: Path) -> None:
    model = shared / "models/resnet20-cifar10/model.safetensors"
    ran = process(
        "audit", model, "--arch", "resnet20-cifar", "--data", shared / "data/cifar10", "--variants", "full",
        "--out", tmp_path / "r", "--json", "-",
    )  # fmt: skip
    document = json.loads(ran.stdout)
    jsonschema.validate(document, schema())
    assert document["verdict"] == "clean", document["reason"]
    assert ran.returncode == 0
    assert document["p_value"] > document["false_alarm_rate"]
    assert document["variants"][0]["accuracy"] > 0.85
    assert {finding["status"] for finding in document["findings"]} == {"ok"}
    assert document["data"]["samples"] == 512
    assert (tmp_path / "r/report.html").stat().st_size > 10_000
    assert "Traceback" not in ran.stderr


def test_an_onnx_file_is_audited_with_gradients_and_beside_its_full_model(run: Run, planted: Path) -> None:
    assert run("stage", "export", planted, "--out", "o").code == 0
    only = ("--data", "signs:3", "--variants", "full", "--detectors", "max-margin,compression-gap", "--json", "-")
    ran = run("audit", "o/model.onnx", *only)
    assert "the class of ONNX Runtime on 64 of 64 pictures" in ran.err
    said = {finding["detector"]: finding["status"] for finding in json.loads(ran.out)["findings"]}
    assert said == {"max-margin": "ok"}, "what needs a reference is not asked where there is none"
    ran = run("audit", "o/model.onnx", *only, "--reference", planted)
    said = {finding["detector"]: finding["status"] for finding in json.loads(ran.out)["findings"]}
    assert said == {"max-margin": "ok", "compression-gap": "ok"}
    assert "compared with the full-precision model" in ran.err
    assert torch.is_grad_enabled()


def test_a_fresh_net_is_trained_and_no_other_stage_takes_one(run: Run, tmp_path: Path) -> None:
    ran = run("stage", "train", "new:resnet8-cifar", *DATA, *QUICK, "--out", "o")
    assert (ran.code, (tmp_path / "o/model.safetensors").exists()) == (0, True)
    assert "before" in ran.err
    for other in (("prune-2:4", "new:resnet8-cifar"), ("train", "new:resnet8-cifar")):
        ran = run("stage", *other, "--out", "b")
        assert ran.code == 2
        assert "a fresh net has to be trained first" in one_line(ran.err)


def test_a_reference_of_another_architecture_is_refused(run: Run, planted: Path) -> None:
    assert run("stage", "export", planted, "--out", "o").code == 0
    assert run("plant", "badnets", "--model", "new:resnet14-cifar", "--data", "signs:3", "--limit", "50",
               "-o", "recipe.epochs=0.1", "--out", "other").code == 0  # fmt: skip
    ran = run("audit", "o/model.onnx", "--data", "signs:3", "--reference", "other/model.safetensors")
    assert ran.code == 2
    assert "it is another architecture" in ran.err


def test_audit_many_goes_over_a_folder_and_does_nothing_twice(run: Run, planted: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    write_model(zoo / "one.safetensors", planted)
    (zoo / "broken.onnx").write_bytes(b"no model")
    quick = ("--arch", "resnet8-cifar", "--data", "signs:3", "--variants", "full", "--detectors", "depth-scan")
    ran = run("audit-many", zoo, *quick, "--workers", "1", "--out", "all")
    assert ran.code == 2, ran.err
    assert "2 models: 1 failed, 1 inconclusive" in ran.err
    document = json.loads((tmp_path / "all/audits.json").read_text())
    assert [model["verdict"] for model in document["models"]] == ["failed", "inconclusive"]
    assert (tmp_path / "all" / document["models"][1]["report"]).is_file()
    (zoo / "broken.onnx").unlink()
    later = run("audit-many", zoo, *quick, "--workers", "1", "--out", "new", "--since", "all")
    assert (later.code, "audited by an earlier run" in (tmp_path / "new/index.html").read_text()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected models"),
        (["nowhere/*.onnx"], "no model there"),
        (["--list", "none.txt"], "cannot be read"),
        (["zoo", "--detectors", "neural-cleans"], "neural-cleanse"),
        (["zoo", "--since", "nowhere"], "earlier audit-many"),
        (["zoo", "--since", "assay-audits"], "same folder"),
        (["zoo", "--data", "nowhere.npz"], "no such data"),
        ([""], "no model there"),
        (["zoo", "--ray", "localhost:1"], "nothing answers there"),
        (["zoo", "--budget", "0"], "more than 0 seconds"),
    ],
)
def test_audit_many_refuses_before_it_computes(
    arguments: list[str], expected: str, run: Run, planted: Path, tmp_path: Path
) -> None:
    (tmp_path / "zoo").mkdir()
    write_model(tmp_path / "zoo/one.safetensors", planted)
    ran = run("audit-many", *arguments)
    assert ran.code == 2
    assert expected in one_line(ran.err)
