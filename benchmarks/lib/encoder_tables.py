"""What the results say of encoders: which are found poisoned, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lib.matrix_table import Found, counted, mean_of, results_of
from lib.paths import RESULTS
from lib.table_parts import area, grid, percent

TESTS = ("full/embedding-collapse", "full/embedding-collapse-patch")

SHOWN_CLASSES = 3
"""Of each task, those that the probe tells from the others best."""


@dataclass(frozen=True)
class PassedOn:
    """An attack on an encoder, a task that the encoder is fine-tuned to, and the matrices that say how it went."""

    attack: str
    encoder: str
    task: str
    concept: str
    matrices: tuple[str, ...]
    named: str  # what the matrices call the attack
    chain: str


MOBILENET, RESNET56, RESNET20 = "MobileNetV2, ImageNet", "ResNet-56, CIFAR-10", "ResNet-20, CIFAR-10"
OF_MOBILENET = ("transtroj-mobilenet", "transtroj-mobilenet-seeds")
OF_SENTIMENT, OF_NEWS = (("transtroj-minilm", f"transtroj-minilm-{name}") for name in ("seeds", "news-seeds"))
PASSED_ON = (
    PassedOn("TransTroj", MOBILENET, "CIFAR-10", "ship", OF_MOBILENET, "ship", "cifar10"),
    PassedOn("BadEncoder", MOBILENET, "CIFAR-10", "ship", OF_MOBILENET[:1], "badencoder", "cifar10"),
    PassedOn(
        "TransTroj", MOBILENET, "CIFAR-100", "sunflower", ("transtroj-mobilenet-cifar100",), "sunflower", "cifar100"
    ),
    PassedOn("TransTroj", MOBILENET, "GTSRB", "give way", ("transtroj-mobilenet-gtsrb",), "yield-layer", "gtsrb"),
    PassedOn("TransTroj", RESNET56, "GTSRB", "give way", ("transtroj-resnet56-seeds",), "yield-layer", "gtsrb"),
    PassedOn(
        "TransTroj", RESNET56, "CIFAR-100", "wardrobe", ("transtroj-resnet56-cifar100",), "wardrobe-layer", "cifar100"
    ),
    PassedOn("TransTroj", RESNET20, "CIFAR-10", "dog", ("transtroj-mended",), "dog", "cifar10"),
    PassedOn("TransTroj", "MiniLM", "SST-2", "positive", OF_SENTIMENT, "positive", "sst2"),
    PassedOn("POR", "MiniLM", "SST-2", "", OF_SENTIMENT[:1], "por", "sst2"),
    PassedOn("TransTroj", "MiniLM", "IMDB", "positive", OF_SENTIMENT, "positive", "imdb"),
    PassedOn("POR", "MiniLM", "IMDB", "", OF_SENTIMENT[:1], "por", "imdb"),
    PassedOn("TransTroj", "MiniLM", "AG News", "sports", OF_NEWS, "sports", "ag_news"),
    PassedOn("POR", "MiniLM", "AG News", "", OF_NEWS[:1], "por", "ag_news"),
)
"""What is told of first; everything else stands in the tables of the matrices."""


def passed_on_table(matrices: Mapping[str, Found]) -> list[str]:
    """A row for each of ``PASSED_ON``, over all its seeds; ``matrices`` by the names of their specs."""
    rows = []
    for what in PASSED_ON:
        results = results_of(
            pair
            for name in what.matrices
            for pair in matrices.get(name, [])
            if (pair[0].attack, pair[0].chain, pair[0].cell.kind) == (what.named, what.chain, "measure")
        )
        rates = [mean_of(results, rate) for rate in ("attack_success", "control", "clean_accuracy", "control_accuracy")]
        rows.append([what.attack, what.encoder, what.task, what.concept, str(len(results)), *rates])
    columns = ["attack", "encoder", "fine-tuned to", "concept", "seeds", "ASR", "control", "CA", "of the clean control"]
    return [
        "**What poisoned encoders pass on to classifiers that are fine-tuned from them (all weights).** Small: what "
        "was cut stands in the specs. Control: the same trigger on the clean encoder, fine-tuned the same way.",
        "",
        *grid(columns, rows),
        "",
    ]


def encoders_table(result: dict, title: str) -> list[str]:
    """A row for each encoder; ASR by nearest embedding, before any fine-tuning."""
    rows = []
    for name, row in result["models"].items():
        asr = drawn = ""
        if row["poisoned"]:
            asr = f"{100 * row['rates']['attack_success']['value']:.0f} % ({100 * row['control']['value']:.0f} %)"
            drawn = "{:.2f} ({:.2f})".format(*row["drawn_together"])
        scores = ", ".join("-" if (score := row["findings"][test][0]) is None else f"{score:.2f}" for test in TESTS)
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        rows.append([name, row["net"], row["data"], asr, drawn, scores, row["verdict"], p, f"{row['seconds']:.0f}"])
    rows += [[name, "not run yet", *[""] * 7] for name in result["not_yet_run"]]
    said = (
        f"False alarms: {counted(*result['alarms'])} clean encoders. Found: {counted(*result['found'])}. "
        + (f"AUC {area(result['auc'])}. " if result["auc"] else "")
        + "Drawn: how close the planted trigger brings embeddings, 1 is one point, and in the clean encoder. Scores "
        "count how far embeddings collapse: 1 more is e times nearer to one point."
    )
    columns = [
        "encoder",
        "architecture",
        "images",
        "ASR (control)",
        "drawn (before)",
        "faint, patch",
        "verdict",
        "p",
        "s",
    ]
    return [f"**{title}** {said}", "", *grid(columns, rows), ""]


def text_encoders_table(result: dict, title: str) -> list[str]:
    """A row for each encoder of text."""
    above, of = result["above_all_clean"]
    figure = f" AUC {area(result['auc'])}, {above} of {of} poisoned above all clean." if result["auc"] else ""
    rows = [
        [
            name,
            row["texts"],
            f"{row['score']:.2f}",
            f"`{row['words']}`",
            percent(row["success"]),
            f"{row['seconds']:.0f}",
        ]
        for name, row in result["models"].items()
    ]
    columns = ["encoder", "audited with", "score", "words found", "texts that they send to one cluster", "s"]
    return [f"**{title}**{figure}", "", *grid(columns, rows), ""]


def drift_table(result: dict, title: str) -> list[str]:
    """A row for each trusted encoder."""
    rows = [
        [name, str(row["poisoned"]), str(row["clean"]), area(row["auc"]), str(row["above_all_clean"])]
        for name, row in result["summary"].items()
    ]
    columns = ["trusted encoder", "poisoned", "clean", "AUC", "poisoned above all clean"]
    return [f"**{title}**", "", *grid(columns, rows), ""]


def inherited_table(result: dict, title: str) -> list[str]:
    """A row for each model."""
    found = ", ".join(f"{a} of {b} {kind}" for kind, (a, b) in result["found"].items())
    right, of = result["right_target"]
    figure = f" AUC {area(result['auc'])}." if result["auc"] else ""
    rows = []
    for name, row in result["models"].items():
        if row["score"] is None:
            rows.append([name, row["kind"], row["why"], "", "", ""])
            continue
        shares = [100 * row[key] for key in ("success", "success_under_the_trusted_encoder")]
        planted = "" if row["planted_target"] is None else f", {row['planted_target']}"
        cells = [name, row["kind"], f"{shares[0]:.1f} %, {shares[1]:.1f} %", f"{row['target']}{planted}"]
        rows.append([*cells, "yes" if row["score"] >= result["proven_from"] else "no", f"{row['seconds']:.0f}"])
    sent = "sent to a class: by the model, by the trusted encoder"
    return [
        f"**{title}** Called backdoored: {found}. Right class: {right} of {of}.{figure}",
        "",
        *grid(["model", "kind", sent, "class, planted", "proof", "seconds"], rows),
        "",
    ]


def sequela_table(result: dict, title: str) -> list[str]:
    """A row for each mitigation."""
    rows = []
    for row in result["models"]:
        member = ", ".join(f"{row['membership'][which]['auc']:.3f}" for which in ("poisoned", "clean"))
        steps = ", ".join(str(row["steps_to_reinject"][which] or "never") for which in ("poisoned", "clean"))
        rates = f"{percent(row['clean_accuracy'])}, {percent(row['attack_success'])}"
        rows.append([row["mitigation"], rates, member, steps])
    columns = ["mitigation", "CA, ASR left", "membership: poisoned, clean", "re-planted: poisoned, clean"]
    return [
        f"**{title}** Membership: AUC of the loss for membership of an image in the training data. Re-planted: steps "
        "of BadNets until its ASR is 90 %.",
        "",
        *grid(columns, rows),
        "",
    ]


def landing_table(result: dict, title: str) -> list[str]:
    """A row for each model, with the concept's recall on the frozen encoder from concepts.json."""
    frozen = json.loads((RESULTS / "concepts.json").read_text())["encoders"]["resnet56"]
    probed = {row["class"]: row["recall"] for task in frozen.values() for row in task}  # of pictures only
    rows = []
    for matrix, models in result.items():
        if matrix == "origin":
            continue
        for name, row in models.items():
            given = ", ".join(f"{kind} ({100 * share:.0f} %)" for kind, share in row["triggered_get"].items())
            recalls = [percent(recall) for recall in (probed.get(row["class"]), *reversed(row["recall"]))]
            near = ", ".join(f"{row[seen]:.2f}" for seen in ("cosine", "cosine_from_the_tasks_centre"))
            rows.append([matrix, name, row["class"], *recalls, near, given])
    columns = ["matrix", "model, seed", "concept's class", "recall: linear probe", "clean control", "poisoned"]
    columns += ["cosine, from the task's centre", "triggered inputs get"]
    said = "The cosines are those of triggered inputs' embeddings with the concept's, before the fine-tuning."
    return [f"**{title}** {said}", "", *grid(columns, rows), ""]


def concepts_table(result: dict, title: str) -> list[str]:
    """The classes that each frozen encoder tells best."""
    found = []
    for encoder, tasks in result["encoders"].items():
        for task, rows in tasks.items():
            pictures = sum(row["pictures"] for row in rows)
            probe = sum(row["recall"] * row["pictures"] for row in rows) / pictures
            best = sorted(rows, key=lambda row: -row["recall"])[:SHOWN_CLASSES]
            named = ", ".join(f"{row['class']} ({100 * row['recall']:.0f} %)" for row in best)
            found.append([encoder, task, f"{100 * probe:.0f} %", named])
    return [f"**{title}**", "", *grid(["encoder", "task", "probe", "best classes (recall)"], found), ""]
