"""``assay audit``: results, exit codes and reports."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import ASSAY, Run, audit_schema, run_process, write_null, write_weights
from support.nulls import null_of_rows
from support.texts import write_data, write_encoder

from assay.calibration.file import save as save_null
from assay.cli import main
from assay.cli.audit import EXIT_CODES, audit
from assay.core.model import PLANTED_KEY
from assay.detectors import NoiseScan

pytestmark = pytest.mark.slow


FULL = ("--data", "signs:3", "--variants", "full")


@pytest.fixture(scope="module")
def findings(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the findings of an audit of ``planted`` with the options ``FULL``."""
    out = tmp_path_factory.mktemp("findings") / "r"
    assert main(["audit", str(planted), *FULL, "--out", str(out)]) == EXIT_CODES["inconclusive"]
    return out / "findings"


@pytest.mark.parametrize(("score", "code", "word"), [(1e6, 0, "clean"), (-1e6, 1, "backdoored")])
def test_exit_code_follows_the_verdict(
    run: Run, planted: Path, findings: Path, tmp_path: Path, score: float, code: int, word: str
) -> None:
    null = write_null(tmp_path / "null.json", score)
    shutil.copytree(findings, tmp_path / "r" / "findings")
    result = run("audit", planted, *FULL, "--null", null, "--json", "-", "--out", "r")
    assert result.code == code, result.err
    document = json.loads(result.out)
    jsonschema.validate(document, audit_schema())
    assert document["verdict"] == word
    assert document["model"]["path"] == str(planted)
    assert "mark of a planted backdoor" in result.err
    assert str(tmp_path / "r" / "report.html") in result.err
    assert {path.name for path in (tmp_path / "r").iterdir()} >= {
        "report.html",
        "audit.json",
        "audit.sarif",
        "junit.xml",
    }


def test_command_in_the_report_repeats_the_audit(run: Run, planted: Path, tmp_path: Path) -> None:
    model, null = write_weights(tmp_path / "a model.safetensors", planted), write_null(tmp_path / "null.json", 1e6)
    given = {
        "data": "signs:3", "arch": "resnet8-cifar", "shape": "3,40,40", "mean": "0.5,0.5,0.5", "std": "0.2,0.2,0.2",
        "no_labels": "", "variants": "full", "detectors": "neural-cleanse,max-margin", "budget": "0.001",
        "reference": model, "reference_arch": "resnet8-cifar", "null": null, "jobs": 2, "seed": 7,
    }  # fmt: skip
    of_encoders = {"features", "pooling", "reference_pooling"}
    of_others = {"output", "reference_output", "label_column"}  # models with several outputs, and tables
    of_extent = {"quick", "fresh"}  # quick excludes variants and detectors, and fresh changes no result
    known = {"model", "out", "json", "sign_report", *given, *of_encoders, *of_others, *of_extent}
    assert known == set(inspect.signature(audit).parameters), "an option is left out"
    named = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
    options = [text for pair in named for text in pair if text]
    result = run("audit", model, *options, "--json", "-")
    assert json.loads(result.out)["command"] == shlex.join(["assay", "audit", str(model), *options])
    result = run("audit", planted, "--variants", "full", "--budget", "0.001", "--json", "-")
    assert json.loads(result.out)["command"] == f"assay audit {planted} --variants full --budget 0.001 --seed 0"
    arguments = ("--data", "signs:3", "--features", "--variants", "full", "--budget", "0.001", "--seed", "3")
    result = run("audit", planted, *arguments, "--json", "-")
    assert json.loads(result.out)["command"] == shlex.join(["assay", "audit", str(planted), *arguments])
    refused = run("audit", planted, "--pooling", "cls")
    assert (refused.code, "expected pooling for a Hugging Face encoder only" in refused.err) == (2, True)


def test_encoder_needs_a_null_of_encoders(run: Run, planted: Path, tmp_path: Path) -> None:
    test = "full/embedding-collapse"
    null = replace(null_of_rows({test: 1e6 + i} for i in range(120)), encoders=True)
    save_null(null, tmp_path / "encoders.json")
    asked = ("--features", "--data", "signs:3", "--detectors", "embedding-collapse", "--budget", "0.001")
    result = run("audit", planted, *asked, "--null", tmp_path / "encoders.json", "--json", "-")
    assert result.code in EXIT_CODES.values()
    result = run("audit", planted, *asked, "--null", write_null(tmp_path / "classifiers.json", 1.0))
    assert result.code == 2
    assert "expected clean models to compare an encoder with" in result.err


def test_reference_can_have_another_pooling(run: Run, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder", pooling=None)
    data = write_data(tmp_path / "texts")
    asked = ("audit", encoder, "--data", data, "--pooling", "mean", "--budget", "0.001", "--json", "-")
    result = run(*asked, "--reference", encoder, "--reference-pooling", "cls")
    document = json.loads(result.out)
    assert f"compared with the encoder {encoder}" in " ".join(document["notes"])
    assert "--reference-pooling cls" in document["command"]


def test_input_and_guesses_are_printed(run: Run, planted: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(12):
        pixels = np.full((9, 9, 3), 20 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"IMG_{1000 + index}.png")
    quick = ("--variants", "full", "--detectors", "latent-shift", "--json", "a.json")
    result = run("audit", planted, "--data", "photos", "--shape", "3,40,40", *quick)
    assert "Input: 3 × 40 × 40" in result.err
    assert "the numbers at the ends of the file names (IMG_1000.png) are not used as classes" in result.err
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["model"]["shape"] == [3, 40, 40]
    assert sum("IMG_1000.png" in note for note in document["notes"]) == 1
    assert {finding["detector"] for finding in document["findings"]} == {"latent-shift"}
    assert run("audit", planted, "--data", "photos", "--no-labels", *quick).code in EXIT_CODES.values()
    assert not any("IMG_1000.png" in note for note in json.loads((tmp_path / "a.json").read_text())["notes"])


def test_tiny_budget_is_inconclusive(run: Run, planted: Path, tmp_path: Path) -> None:
    null = write_null(tmp_path / "null.json", 1e6)
    options = ("--variants", "full", "--budget", "0.001", "--null", null, "--json", "a.json")
    result = run("audit", planted, "--data", "signs:3", *options)
    assert result.code == 3
    assert result.out == ""
    document = json.loads((tmp_path / "a.json").read_text())
    jsonschema.validate(document, audit_schema())
    assert document["verdict"] == "inconclusive"
    assert document["reason"]


@pytest.mark.parametrize("score", [1e6, -1e6])
def test_audit_without_data_is_inconclusive(run: Run, planted: Path, tmp_path: Path, score: float) -> None:
    result = run("audit", planted, "--variants", "full", "--null", write_null(tmp_path / "null.json", score))
    assert result.code == 3, result.err
    assert "there are no clean samples" in result.err


def test_hostile_names_are_printed_as_text(run: Run, planted: Path, tmp_path: Path) -> None:
    mark = "[red]owned[/red] \x1b[31m \u202e [link=http://x]y[/link]\nassay: fine"
    model = write_weights(tmp_path / "m.safetensors", planted, metadata={PLANTED_KEY: mark})
    result = run("audit", model, "--arch", "resnet8-cifar", "--variants", "full", "--budget", "0.01")
    assert result.code == 3
    assert "[red]owned[/red]" in result.err
    assert "\x1b" not in result.err
    assert "\u202e" not in result.err


def test_onnx_file_is_tested_with_gradients_and_compared_with_its_original(run: Run, planted: Path) -> None:
    assert run("stage", "export", planted, "--out", "o").code == 0
    only = ("--data", "signs:3", "--variants", "full", "--detectors", "max-margin,compression-gap", "--json", "-")
    result = run("audit", "o/model.onnx", *only)
    assert "the class of ONNX Runtime on 64 of 64 images" in result.err
    outcomes = {finding["detector"]: finding["outcome"] for finding in json.loads(result.out)["findings"]}
    assert outcomes == {"max-margin": "scored"}, "without a reference, no comparison runs"
    result = run("audit", "o/model.onnx", *only, "--reference", planted)
    outcomes = {finding["detector"]: finding["outcome"] for finding in json.loads(result.out)["findings"]}
    assert outcomes == {"max-margin": "scored", "compression-gap": "scored"}
    assert "compared with the full-precision model" in result.err
    assert torch.is_grad_enabled()


def test_reference_of_another_architecture_is_rejected(run: Run, planted: Path) -> None:
    assert run("stage", "export", planted, "--out", "o").code == 0
    assert run("plant", "badnets", "--model", "new:resnet14-cifar", "--shape", "3,16,16", "--data", "signs:3",
               "--limit", "50", "-o", "recipe.epochs=0.1", "--out", "other").code == 0  # fmt: skip
    result = run("audit", "o/model.onnx", "--data", "signs:3", "--reference", "other/model.safetensors")
    assert result.code == 2
    assert "got another architecture" in result.err


def test_real_clean_model_is_clean(shared: Path, tmp_path: Path) -> None:
    model = shared / "models/resnet20-cifar10/model.safetensors"
    result = run_process(
        "audit", model, "--arch", "resnet20-cifar", "--data", shared / "data/cifar10", "--variants", "full",
        "--out", tmp_path / "r", "--json", "-",
    )  # fmt: skip
    document = json.loads(result.stdout)
    jsonschema.validate(document, audit_schema())
    assert document["verdict"] == "clean", document["reason"]
    assert result.returncode == 0
    assert document["p_value"] > document["false_alarm_rate"]
    assert document["variants"][0]["accuracy"] > 0.85
    assert {finding["outcome"] for finding in document["findings"]} == {"scored", "checked"}
    assert document["data"]["samples"] == 512
    assert (tmp_path / "r/report.html").stat().st_size > 10_000
    assert "Traceback" not in result.stderr


CHEAP = (
    "--data",
    "signs:3",
    "--variants",
    "full,int8",
    "--detectors",
    "latent-shift,depth-scan,noise-scan",
    "--out",
    "r",
)


def test_quick_audit_never_says_clean(run: Run, planted: Path, tmp_path: Path) -> None:
    null = write_null(tmp_path / "null.json", 1e6)
    result = run("audit", planted, "--data", "signs:3", "--null", null, "--quick", "--json", "-", "--out", "my r")
    assert result.code == 3, result.err
    document = json.loads(result.out)
    jsonschema.validate(document, audit_schema())
    assert (document["verdict"], document["status"]) == ("inconclusive", "unknown")
    assert "int8/patch-scan" in document["quick"]["left_out"]
    assert document["command"] == f"assay audit {planted} --data signs:3 --null {null} --quick --seed 0"
    assert "The quick audit found no backdoor. It cannot show that there is none." in result.err
    line = next(line for line in result.err.splitlines() if line.startswith("Run the other tests: "))
    assert shlex.split(line.partition(": ")[2])[-2:] == ["--out", "my r"]
    assert "--quick" not in line
    quick = ("audit", planted, "--quick", "--variants", "full")
    assert "a quick audit chooses them" in run(*quick).err
    assert run(*quick).code == 2


def test_second_audit_takes_the_findings_of_the_first(run: Run, planted: Path, tmp_path: Path) -> None:
    def tests_taken(*more: str) -> str:
        result = run("audit", planted, *CHEAP, "--json", "a.json", *more)
        notes = [note for note in json.loads((tmp_path / "a.json").read_text())["notes"] if "tests are taken" in note]
        assert all(result.err.count(note) == 1 for note in notes)
        return " ".join(notes)

    assert tests_taken() == ""
    assert tests_taken().startswith("5 of 5 tests are taken from the audit of")
    assert tests_taken("--fresh") == ""
    assert tests_taken("--seed", "1") == ""
    assert "5 of 5" in tests_taken("--seed", "1")
    assert "5 of 5" not in tests_taken("--seed", "1", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")


def test_killed_audit_goes_on(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("audit", str(planted), *CHEAP[:-4], "--detectors", "latent-shift,depth-scan,patch-scan", "--out", "r")
    process = subprocess.Popen([ASSAY, *words], stderr=subprocess.DEVNULL)
    while not list((tmp_path / "r").rglob("*.json")):
        assert process.poll() is None, "the audit ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "r" / "report.html").exists()
    result = run_process(*words)
    assert result.returncode in EXIT_CODES.values()
    assert re.search(r"[1-4] of 5 tests are taken from the audit of", result.stderr), result.stderr
    assert "damaged" not in result.stderr
    assert (tmp_path / "r" / "report.html").exists()


def test_interrupted_audit_tells_where_it_goes_on(run: Run, planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(NoiseScan, "run", interrupt)
    result = run("audit", planted, *CHEAP)
    assert result.code == 2
    assert "Finished tests are stored in r: the same command goes on from them." in result.err
    assert "Traceback" not in result.err
