"""Tables of encoders: detection of poisoned ones, and backdoors in classifiers made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lib.matrix_table import CellRecords, counts_with_interval, mean_of, results_of
from lib.paths import RESULTS
from lib.table_parts import area, grid, percent

TESTS = ("full/embedding-collapse", "full/embedding-collapse-patch")

SHOWN_CLASSES = 3  # best classes of the probe, per task


@dataclass(frozen=True)
class Transfer:
    """An attack on an encoder, a downstream task, and the matrices with the results."""

    attack: str
    encoder: str
    task: str
    concept: str
    matrices: tuple[str, ...]
    attack_name: str  # in the matrices
    chain: str


MOBILENET, RESNET56, RESNET20 = "MobileNetV2, ImageNet", "ResNet-56, CIFAR-10", "ResNet-20, CIFAR-10"
OF_MOBILENET = ("transtroj-mobilenet", "transtroj-mobilenet-seeds")
OF_SENTIMENT, OF_NEWS = (("transtroj-minilm", f"transtroj-minilm-{name}") for name in ("seeds", "news-seeds"))
# Rows of the first table. Everything else is in the tables of the matrices.
TRANSFERS = (
    Transfer("TransTroj", MOBILENET, "CIFAR-10", "ship", OF_MOBILENET, "ship", "cifar10"),
    Transfer("BadEncoder", MOBILENET, "CIFAR-10", "ship", OF_MOBILENET[:1], "badencoder", "cifar10"),
    Transfer(
        "TransTroj", MOBILENET, "CIFAR-100", "sunflower", ("transtroj-mobilenet-cifar100",), "sunflower", "cifar100"
    ),
    Transfer("TransTroj", MOBILENET, "GTSRB", "give way", ("transtroj-mobilenet-gtsrb",), "yield-layer", "gtsrb"),
    Transfer("TransTroj", RESNET56, "GTSRB", "give way", ("transtroj-resnet56-seeds",), "yield-layer", "gtsrb"),
    Transfer(
        "TransTroj", RESNET56, "CIFAR-100", "wardrobe", ("transtroj-resnet56-cifar100",), "wardrobe-layer", "cifar100"
    ),
    Transfer("TransTroj", RESNET20, "CIFAR-10", "dog", ("transtroj-mended",), "dog", "cifar10"),
    Transfer("TransTroj", "MiniLM", "SST-2", "positive", OF_SENTIMENT, "positive", "sst2"),
    Transfer("POR", "MiniLM", "SST-2", "", OF_SENTIMENT[:1], "por", "sst2"),
    Transfer("TransTroj", "MiniLM", "IMDB", "positive", OF_SENTIMENT, "positive", "imdb"),
    Transfer("POR", "MiniLM", "IMDB", "", OF_SENTIMENT[:1], "por", "imdb"),
    Transfer("TransTroj", "MiniLM", "AG News", "sports", OF_NEWS, "sports", "ag_news"),
    Transfer("POR", "MiniLM", "AG News", "", OF_NEWS[:1], "por", "ag_news"),
)


def transfers_table(matrices: Mapping[str, CellRecords]) -> list[str]:
    """Return a row per entry of ``TRANSFERS``, over all its seeds. ``matrices`` has the names of the specs as keys."""
    rows = []
    for transfer in TRANSFERS:
        results = results_of(
            pair
            for name in transfer.matrices
            for pair in matrices.get(name, [])
            if (pair[0].attack, pair[0].chain, pair[0].cell.kind) == (transfer.attack_name, transfer.chain, "measure")
        )
        rates = [mean_of(results, rate) for rate in ("attack_success", "control", "clean_accuracy", "control_accuracy")]
        rows.append([transfer.attack, transfer.encoder, transfer.task, transfer.concept, str(len(results)), *rates])
    columns = ["attack", "encoder", "fine-tuned to", "concept", "seeds", "ASR", "control", "CA", "of the clean control"]
    return [
        "**Backdoors inherited by classifiers that are fine-tuned from a poisoned encoder (all weights).** Reduced "
        "settings; the specs list the reductions. Control: the same trigger on the clean encoder, fine-tuned alike.",
        "",
        *grid(columns, rows),
        "",
    ]


def encoders_table(result: dict, title: str) -> list[str]:
    """Return a row per encoder, with ASR by nearest embedding before any fine-tuning."""
    rows = []
    for name, row in result["models"].items():
        asr = closeness = ""
        if row["poisoned"]:
            asr = f"{100 * row['rates']['attack_success']['value']:.0f} % ({100 * row['control']['value']:.0f} %)"
            closeness = "{:.2f} ({:.2f})".format(*row["drawn_together"])
        scores = ", ".join("-" if (score := row["findings"][test][0]) is None else f"{score:.2f}" for test in TESTS)
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        rows.append([name, row["net"], row["data"], asr, closeness, scores, row["verdict"], p, f"{row['seconds']:.0f}"])
    rows += [[name, "not run yet", *[""] * 7] for name in result["not_yet_run"]]
    summary = (
        f"False alarms: {counts_with_interval(*result['alarms'])} clean encoders. "
        f"Found: {counts_with_interval(*result['found'])}. "
        + (f"AUC {area(result['auc'])}. " if result["auc"] else "")
        + "Closeness: of triggered embeddings (1: a single point), and in the clean encoder. A score that is larger by "
        "1 means embeddings e times nearer to a single point."
    )
    columns = [
        "encoder",
        "architecture",
        "images",
        "ASR (control)",
        "closeness (clean)",
        "faint, patch",
        "verdict",
        "p",
        "s",
    ]
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]


def text_encoders_table(result: dict, title: str) -> list[str]:
    """Return a row per text encoder."""
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
    columns = ["encoder", "audited with", "score", "words found", "texts in one cluster with them", "s"]
    return [f"**{title}**{figure}", "", *grid(columns, rows), ""]


def drift_table(result: dict, title: str) -> list[str]:
    """Return a row per trusted encoder."""
    rows = [
        [name, str(row["poisoned"]), str(row["clean"]), area(row["auc"]), str(row["above_all_clean"])]
        for name, row in result["summary"].items()
    ]
    columns = ["trusted encoder", "poisoned", "clean", "AUC", "poisoned above all clean"]
    return [f"**{title}**", "", *grid(columns, rows), ""]


def inherited_table(result: dict, title: str) -> list[str]:
    """Return a row per model."""
    found = ", ".join(f"{a} of {b} {kind}" for kind, (a, b) in result["found"].items())
    right, of = result["right_target"]
    figure = f" AUC {area(result['auc'])}." if result["auc"] else ""
    rows = []
    for name, row in result["models"].items():
        if row["score"] is None:
            rows.append([name, row["kind"], row["why"], "", "", ""])
            continue
        percentages = [100 * row[key] for key in ("success", "success_under_the_trusted_encoder")]
        planted = "" if row["planted_target"] is None else f", {row['planted_target']}"
        cells = [name, row["kind"], f"{percentages[0]:.1f} %, {percentages[1]:.1f} %", f"{row['target']}{planted}"]
        rows.append([*cells, "yes" if row["score"] >= result["proven_from"] else "no", f"{row['seconds']:.0f}"])
    success = "inputs with the found trigger in the class: model, trusted encoder"
    return [
        f"**{title}** Called backdoored: {found}. Right class: {right} of {of}.{figure}",
        "",
        *grid(["model", "kind", success, "class, planted", "proof", "seconds"], rows),
        "",
    ]


def sequela_table(result: dict, title: str) -> list[str]:
    """Return a row per mitigation."""
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
    """Return a row per model, with the concept's recall on the frozen encoder from concepts.json."""
    frozen = json.loads((RESULTS / "concepts.json").read_text())["encoders"]["resnet56"]
    probed = {row["class"]: row["recall"] for task in frozen.values() for row in task}  # image tasks only
    rows = []
    for matrix, models in result.items():
        if matrix == "origin":
            continue
        for name, row in models.items():
            given = ", ".join(f"{kind} ({100 * fraction:.0f} %)" for kind, fraction in row["triggered_get"].items())
            recalls = [percent(recall) for recall in (probed.get(row["class"]), *reversed(row["recall"]))]
            near = ", ".join(f"{row[seen]:.2f}" for seen in ("cosine", "cosine_from_the_tasks_centre"))
            rows.append([matrix, name, row["class"], *recalls, near, given])
    columns = ["matrix", "model, seed", "concept's class", "recall: linear probe", "clean control", "poisoned"]
    columns += ["cosine, from the task's centre", "most frequent classes of triggered inputs"]
    summary = "The cosines are those of triggered inputs' embeddings with the concept's, before the fine-tuning."
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]


def concepts_table(result: dict, title: str) -> list[str]:
    """Return the classes with the best recall of each frozen encoder."""
    table = []
    for encoder, tasks in result["encoders"].items():
        for task, rows in tasks.items():
            images = sum(row["pictures"] for row in rows)
            probe = sum(row["recall"] * row["pictures"] for row in rows) / images
            best = sorted(rows, key=lambda row: -row["recall"])[:SHOWN_CLASSES]
            best_classes = ", ".join(f"{row['class']} ({100 * row['recall']:.0f} %)" for row in best)
            table.append([encoder, task, f"{100 * probe:.0f} %", best_classes])
    return [f"**{title}**", "", *grid(["encoder", "task", "probe", "best classes (recall)"], table), ""]
