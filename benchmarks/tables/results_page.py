"""Write docs/results.md, and what of it is short into README, from benchmarks/results/*.json.

python benchmarks/run.py results_page
"""

from __future__ import annotations

import json
import re
from itertools import groupby

from lib.compression_tables import deployers_table, gap_table, paper_table
from lib.encoder_tables import (
    concepts_table,
    drift_table,
    encoders_table,
    inherited_table,
    landing_table,
    passed_on_table,
    sequela_table,
    text_encoders_table,
)
from lib.graph_tables import (
    clean_graphs_table,
    graph_edits_table,
    lattice_table,
    low_bits_table,
    persistence_table,
    rff_table,
    signature_table,
)
from lib.matrix_table import counted, matrix_table
from lib.rows import RESULTS, ROOT
from lib.table_parts import area, grid, percent

from tables.matrices import PLACE, found, stages_run

Result = dict


SEARCHES = {
    "gradients": "the audit's searches by gradients, on the model as given",
    "all": "all of the audit's tests on the model as given",
    "published": "Neural Cleanse as published",
}
"""What benchmarks/run.py search_speed compares."""

FULL_LENGTH = 1000
"""Steps a class of Neural Cleanse as published."""

HEAD = 2
"""Lines of a table above its rows."""

MOST_LINES = 12
"""Of a table in README; longer ones are in docs/results.md only."""

DETAILS = ROOT / "docs" / "results.md"
HEADER = """# Results, model by model

Made by `benchmarks/run.py results_page` from `benchmarks/results`. What the figures are worth is said in README. In brackets
behind a mean: from the least to the most of the models.
"""

MOST_NAMES = 5
"""Tests that are named in a row."""


def detection(result: Result, title: str) -> list[str]:
    whole, judged = result["auc"], result["auc_judged"]
    said = (
        f"{result['clean_models']} clean and {result['backdoored_models']} backdoored models, "
        f"{result['valid']} of them with an ASR of 80 % or more (the others count as failed attacks). False alarms: "
        f"{counted(result['false_alarms'], result['clean_models'])}. Found: "
        f"{counted(result['found'], result['valid'])}, "
        f"{result['right_target']} with the right target. Inconclusive: {result['inconclusive']}."
        + (f" AUC {whole['auc']:.3f} ({whole['low']:.3f} to {whole['high']:.3f})" if whole else "")
        + (f", without the inconclusive ones {judged['auc']:.3f}." if judged else ".")
    )
    rows = []
    for name, row in result["models"].items():
        asr = percent(row["asr"]) if row["backdoored"] else ""
        control = percent(row["control"]) if row["backdoored"] and "control" in row else ""
        found = row["verdict"] == "backdoored"
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        target = f"{row['target_found']} ({row['target']})" if row["backdoored"] and found else ""
        by = smallest(row) if found else ""
        rows.append([name, percent(row["accuracy"]), asr, control, row["verdict"], p, target, by])
    rows += [[name, f"failed: {reason}", *[""] * 6] for name, reason in result.get("failed", {}).items()]
    rows += [[name, "not run yet", *[""] * 6] for name in result.get("not_yet_run", [])]
    columns = ["model", "accuracy", "ASR", "control", "verdict", "p", "target", "found by"]
    return [f"**{title}** {said}", "", *grid(columns, rows), ""]


def smallest(row: Result) -> str:
    """The tests with the smallest p-value."""
    ran = {test: finding[1] for test, finding in row["findings"].items() if finding[1] is not None}
    least = min(ran.values())
    names = [test.removeprefix("full/") for test, p in ran.items() if p == least]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def audits(result: Result, title: str) -> list[str]:
    rows = []
    for name, row in result["models"].items():
        planted = row.get("target", result.get("target") if name == "planted" else None)
        asr = percent(row["asr"]) if "asr" in row else ""
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        target = "" if planted is None else f"{row['target_found']} ({planted})"
        rows.append([name, percent(row["accuracy"]), asr, row["verdict"], p, target, f"{row['seconds']:.0f}"])
    columns = ["model", "accuracy", "ASR", "verdict", "p", "target found (planted)", "seconds"]
    return [f"**{title}**", "", *grid(columns, rows), ""]


def speed(result: Result, title: str) -> list[str]:
    times, areas = result["times_faster"], result.get("auc", {})
    said = "One thread; medians."
    steps = min(row["published"]["steps"] for row in result["models"].values())
    if steps < FULL_LENGTH:
        said += f" The reference's time is extrapolated from {steps} steps a class."
    compared, models = [], []
    for who, what in SEARCHES.items():
        judged = [area(areas[who]), str(result["right_target"][who])] if areas.get(who) else ["", ""]
        compared.append([what, f"{times[who]:.0f}" if who in times else "1", *judged])
    for name, row in result["models"].items():
        target = "none" if row["target"] is None else row["target"]
        cells = [f"{row[who]['score']:.2f}, {row[who]['target']}, {seconds(row[who]):.0f}" for who in SEARCHES]
        models.append([name, str(target), *cells])
    return [
        f"**{title}** {said}",
        "",
        *grid(["", "times faster", "AUC", "target named"], compared),
        "",
        *grid(["model", "target", *(f"{who}: score, class, s" for who in SEARCHES)], models),
        "",
    ]


def seconds(search: Result) -> float:
    return float(search.get("seconds_at_1000_steps", search["seconds"]))


def agreement(result: Result, title: str) -> list[str]:
    agrees = ("agreement_twin_file", "agreement_full_file")
    rows = [[row["model"], row["weights"], *(f"{100 * row[name]:.2f} %" for name in agrees)] for row in result["rows"]]
    return [f"**{title}**", "", *grid(["model", "weights", "twin agrees", "full precision agrees"], rows), ""]


def times(result: Result, title: str) -> list[str]:
    return [
        f"**{title}** {result['audit_seconds']:.0f} s for {len(result['variants'])} forms, "
        f"verdict {result['verdict']}; `assay --help` {result['help_seconds']:.2f} s.",
        "",
    ]


def pairs(result: Result, title: str) -> list[str]:
    table = []
    for kind, mean_area in result["mean_auc"].items():
        rows = [encoder[kind] for encoder in result["encoders"].values()]
        least = min(row["auc"]["auc"] for row in rows)
        clean, triggered = (sum(row["stand_out"][side] for row in rows) / len(rows) for side in (0, 1))
        table.append([kind, f"{mean_area:.2f} ({least:.2f})", percent(clean), percent(triggered)])
    columns = ["paired with", "AUC, mean (least)", "clean ones that stand out", "triggered"]
    return [f"**{title}**", "", *grid(columns, table), ""]


def transfer(result: Result, title: str) -> list[str]:
    rows = {"each by itself": result["one_left_out"]}
    rows |= {f"all of the kind {name}": row for name, row in result["kinds_left_out"].items()}
    table = [[name, *(str(row[figure]) for figure in ("models", "judged", "alarms"))] for name, row in rows.items()]
    rest = "The rest is *inconclusive*: too few models on data like theirs are left."
    return [f"**{title}**", "", *grid(["left out", "models", "judged", "alarms"], table), "", rest, ""]


MATRICES = {
    "cifar10": "CIFAR-10: ResNet-20 and -32 fine-tuned, ResNet-14 from scratch.",
    "third-party": "Clean CIFAR-10 ResNets that others published, as they are.",
    "first": "Signs and digits, ResNet-8 from scratch, along three chains.",
    "dormant": "Backdoors that sleep in the full-precision file, ResNet-20 (CIFAR-10), three seeds.",
    "dormant-gtsrb": "Two of them in a ResNet-20 for road signs (GTSRB), three seeds.",
    "dormant-wide": "The same in a half-width ResNet-18 (CIFAR-10), three seeds.",
    "transtroj-mobilenet": (
        "TransTroj and BadEncoder in MobileNetV2 (ImageNet weights, 96 pixels) and in what is fine-tuned from it, one "
        "seed, small. On the chain `encoder` by nearest embedding."
    ),
    "transtroj-mobilenet-seeds": "Two more seeds of `ship`.",
    "transtroj-mobilenet-cifar100": "The same encoder, taken to CIFAR-100 (100 classes, 4,000 pictures).",
    "transtroj-mobilenet-gtsrb": (
        "The same encoder and road signs, with the paper's concept of them, give way: embeddings compared, and the "
        "whole last map for twice as long."
    ),
    "transtroj-resnet56": (
        "TransTroj in ResNet-56-CIFAR10 (64 features) and in what is fine-tuned from it to road signs, one seed, "
        "small: with the embeddings compared, and with the whole last map."
    ),
    "transtroj-resnet56-seeds": "The same, `yield-layer` alone, three seeds: one of them fails.",
    "transtroj-resnet56-cifar100": "The same encoder with its whole last map, taken to CIFAR-100 (4,000 pictures).",
    "transtroj-minilm": (
        "TransTroj on text and POR in MiniLM, and in what is fine-tuned from it, one seed, small. On the chain "
        "`encoder` by nearest embedding. Where a task has no class for the concept, the control is the clean twin's "
        "share in the class that the poisoned one gives most."
    ),
    "transtroj-minilm-seeds": "Two more seeds of `positive`, for the tasks of sentiment.",
    "transtroj-minilm-news-seeds": "Two more seeds of `sports`, for AG News.",
    "transtroj-inherited": (
        "TransTroj in ResNet-20-CIFAR10 and in the classifiers of CIFAR-10 fine-tuned from it, two seeds, small: what "
        "the audit's search for a faint pattern says of them."
    ),
    "transtroj-mended": "What removes it from such a classifier.",
    "transtroj-survival": "What it survives on the way (pruning, int8, unlearning in the encoder), one seed.",
    "transtroj-tuned": "And fine-tuning: epochs and learning rates, one seed.",
}
"""Specs in benchmarks/specs whose records are kept."""

TABLES = {
    "generality_1": (
        detection,
        "Models backdoored by other code, first round (7 were found before the null and the statistic changed).",
    ),
    "generality_2": (
        detection,
        "Models backdoored by other code, held out: all drawn anew, looked at once.",
    ),
    "paper_scale": (paper_table, "Backdoors that sleep until the model is quantized, beside the published rows."),
    "compression_gap": (gap_table, "Backdoors that sleep in full precision, and the gap detector (CIFAR-10)."),
    "deployers": (deployers_table, "What of them wakes in forms that no attack was made for (docs/results.md)."),
    "pairing": (
        pairs,
        "Model pairing: triggered inputs told from clean ones where a poisoned ResNet-20 and another encoder disagree.",
    ),
    "encoders": (encoders_table, "Encoders before anyone fine-tunes them: CIFAR ResNets cut at their features."),
    "text_encoders": (
        text_encoders_table,
        "Encoders of text, all made of MiniLM: the search for words (`token-collapse`).",
    ),
    "drift": (drift_table, "The CIFAR ResNets beside a trusted one (`embedding-drift`)."),
    "inherited": (inherited_table, "Classifiers beside the encoder that they should come from (`inherited-trigger`)."),
    "landing": (
        landing_table,
        "Where the attack fell short on a seed: where triggered inputs end up, and whether the nets know the concept.",
    ),
    "concepts": (concepts_table, "What frozen encoders tell apart: a linear probe on 4,000 pictures."),
    "signature": (signature_table, "The signature backdoor: unsigned, signed and forged pictures, and the remedy."),
    "low_bits": (low_bits_table, "What random lowest bits cost MobileNetV2 on pictures with real labels."),
    "graph_edits": (
        graph_edits_table,
        "Backdoors in the computation, as files: what the graph detector says of them (rules: docs/architecture.md).",
    ),
    "persistence": (persistence_table, "What removes which backdoor: ResNet-20-CIFAR10."),
    "sequela": (sequela_table, "What a removed backdoor leaves behind (TransTroj in a classifier, one seed)."),
    "clean_graphs": (clean_graphs_table, "The graph detector on clean graphs of transformers (random weights)."),
    "rff": (rff_table, "Random Fourier features with a key, on the features of ResNet-56-CIFAR10."),
    "lattice": (lattice_table, "Keys of random features, recovered by lattice reduction."),
    "null_transfer": (transfer, "Clean reference models, judged by those that remain."),
    "strangers": (audits, "Nets that are like no reference model, on data like theirs."),
    "one_audit": (times, "One audit of the third-party ResNet-20, two threads."),
    "search_speed_resnet20": (speed, "Trigger search against Neural Cleanse as published, ResNet-20."),
    "search_speed_resnet18": (speed, "The same on a ResNet-18 (untrained: time only)."),
    "signs_scaling": (audits, "Signs with 10, 100 and 1,000 classes (whole audits, four variants)."),
    "mobilenet": (audits, "MobileNetV2-ImageNet, 1,001 classes, 224 px, 20 pictures."),
    "int8_agreement": (agreement, "The int8 twin against the ONNX Runtime file, CIFAR-10 test."),
}


def brief(lines: list[str]) -> list[str]:
    """``lines`` with a word in place of each long table."""
    blocks = [list(block) for empty, block in groupby(lines, key=lambda line: not line) if not empty]
    short = [
        [f"{len(block) - HEAD} rows: [docs/results.md](docs/results.md)."]
        if block[0].startswith("|") and len(block) > MOST_LINES
        else block
        for block in blocks
    ]
    return [line for block in short for line in (*block, "")]


def main() -> None:
    paths = {name: path for name in MATRICES if (path := PLACE / f"{name}.jsonl").exists()}
    matrices = {name: found(path) for name, path in paths.items()}
    lines = passed_on_table(matrices)
    shown = list(lines)
    for name, cells in matrices.items():
        made = matrix_table(cells, MATRICES[name], stages_run(paths[name]))
        lines += made
        shown += brief(made)
    for name, (table, title) in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            made = table(json.loads(path.read_text()), title)
            lines += made
            shown += brief(made)
    DETAILS.write_text("\n".join([HEADER, *lines]))
    readme = ROOT / "README.md"
    text = re.sub(
        r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)",
        lambda _: "\n".join(shown) + "\n",
        readme.read_text(),
        flags=re.S,
    )
    readme.write_text(text)


if __name__ == "__main__":
    main()
