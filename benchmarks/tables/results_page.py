"""Write docs/results.md from benchmarks/results.

python benchmarks/run.py results_page [PAGE]
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from lib import commands
from lib.cases_table import cases_table
from lib.compression_tables import deployers_table, gap_table, paper_table, seeds_table
from lib.encoder_tables import (
    concepts_table,
    drift_table,
    encoders_table,
    inherited_table,
    landing_table,
    sequela_table,
    text_encoders_table,
    transfers_table,
)
from lib.fuzzing_table import fuzzing_table
from lib.graph_tables import (
    clean_graphs_table,
    graph_edits_table,
    hiding_table,
    lattice_table,
    low_bits_table,
    persistence_table,
    rff_table,
    signature_table,
)
from lib.kills_table import kills_table
from lib.matrix_table import CellRecords, counts_with_interval, matrix_table
from lib.paths import MATRICES, RESULTS, ROOT
from lib.processor_table import processors_table
from lib.quick_table import quick_table
from lib.racing_table import racing_table
from lib.scaling_table import scaling_table
from lib.table_parts import area, grid, percent

from tables.matrices import cells_and_records, stages_run

SHOWN_TESTS = 9  # of the table of costs

Result = dict


# Searches of benchmarks/run.py search_speed.
SEARCHES = {
    "gradients": "the audit's searches by gradients, on the model as given",
    "all": "all of the audit's tests on the model as given",
    "published": "Neural Cleanse as published",
}
PUBLISHED_STEPS = 1000  # per class, of Neural Cleanse as published

PAGE = ROOT / "docs" / "results.md"
HEADER = Path(__file__).with_name("results_header.md")  # text above the tables
MAX_NAMES = 5  # tests named in a row


def detection(result: Result, title: str) -> list[str]:
    """Return the table of third-party attacks."""
    area_of_all, area_of_conclusive = result["auc"], result["auc_judged"]
    summary = (
        f"{result['clean_models']} clean and {result['backdoored_models']} backdoored models, "
        f"{result['valid']} of them with an ASR of 80 % or more (the others count as failed attacks). False alarms: "
        f"{counts_with_interval(result['false_alarms'], result['clean_models'])}. Found: "
        f"{counts_with_interval(result['found'], result['valid'])}, "
        f"{result['right_target']} with the right target. Inconclusive: {result['inconclusive']}."
        + (
            f" AUC {area_of_all['auc']:.3f} ({area_of_all['low']:.3f} to {area_of_all['high']:.3f})"
            if area_of_all
            else ""
        )
        + (f", without the inconclusive ones {area_of_conclusive['auc']:.3f}." if area_of_conclusive else ".")
    )
    rows = []
    for name, row in result["models"].items():
        asr = percent(row["asr"]) if row["backdoored"] else ""
        control = percent(row["control"]) if row["backdoored"] and "control" in row else ""
        alarm = row["verdict"] == "backdoored"
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        target = f"{row['target_found']} ({row['target']})" if row["backdoored"] and alarm else ""
        by = smallest_tests(row) if alarm else ""
        rows.append([name, percent(row["accuracy"]), asr, control, row["verdict"], p, target, by])
    rows += [[name, f"failed: {reason}", *[""] * 6] for name, reason in result.get("failed", {}).items()]
    rows += [[name, "not run yet", *[""] * 6] for name in result.get("not_yet_run", [])]
    columns = ["model", "accuracy", "ASR", "control", "verdict", "p", "target", "found by"]
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]


def smallest_tests(row: Result) -> str:
    """Return the tests with the smallest p-value."""
    ran = {test: finding[1] for test, finding in row["findings"].items() if finding[1] is not None}
    least = min(ran.values())
    names = [test.removeprefix("full/") for test, p in ran.items() if p == least]
    return ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")


def audits(result: Result, title: str) -> list[str]:
    """Return a row per audited model."""
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
    """Return the table of the search speed."""
    times, areas = result["times_faster"], result.get("auc", {})
    summary = "One thread; medians."
    steps = min(row["published"]["steps"] for row in result["models"].values())
    if steps < PUBLISHED_STEPS:
        summary += f" The reference's time is extrapolated from {steps} steps a class."
    compared, models = [], []
    for search, description in SEARCHES.items():
        detection = [area(areas[search]), str(result["right_target"][search])] if areas.get(search) else ["", ""]
        compared.append([description, f"{times[search]:.0f}" if search in times else "1", *detection])
    for name, row in result["models"].items():
        target = "none" if row["target"] is None else row["target"]
        cells = [
            f"{row[search]['score']:.2f}, {row[search]['target']}, {seconds(row[search]):.0f}" for search in SEARCHES
        ]
        models.append([name, str(target), *cells])
    return [
        f"**{title}** {summary}",
        "",
        *grid(["", "times faster", "AUC", "target named"], compared),
        "",
        *grid(["model", "target", *(f"{search}: score, class, s" for search in SEARCHES)], models),
        "",
    ]


def seconds(search: Result) -> float:
    """Return the seconds of one search at its published length."""
    return float(search.get("seconds_at_1000_steps", search["seconds"]))


def agreement(result: Result, title: str) -> list[str]:
    """Return the table of int8 agreement."""
    agrees = ("agreement_twin_file", "agreement_full_file")
    rows = [[row["model"], row["weights"], *(f"{100 * row[name]:.2f} %" for name in agrees)] for row in result["rows"]]
    return [
        f"**{title}**",
        "",
        *grid(["model", "weights", "fake-quantized module agrees", "full precision agrees"], rows),
        "",
    ]


def times(result: Result, title: str) -> list[str]:
    """Return the seconds of the audit and of the demo in both number formats."""
    demos, single = result["demo_seconds"], result["float32"]
    rows = [
        ["`assay audit`, ResNet-20", f"{result['audit_seconds']:.0f} s", f"{single['audit_seconds']:.0f} s"],
        ["`assay demo`", f"{demos['bfloat16']:.0f} s", f"{demos['float32']:.0f} s"],
    ]
    summary = (
        f"Verdict {result['verdict']} and {single['verdict']}. `assay --help` takes {result['help_seconds']:.2f} s."
    )
    return [f"**{title}** {summary}", "", *grid(["command", "bfloat16", "float32"], rows), ""]


def costs(result: Result, title: str) -> list[str]:
    """Return the CPU seconds of an audit by test, and those of Neural Cleanse of BackdoorBench."""
    audit, other = result["audit"], result["backdoorbench"]
    published = other["published"]
    summary = (
        f"One thread, float32. The audit took {audit['cpu_seconds']:.0f} CPU seconds and {audit['peak_mib']:.0f} MiB, "
        f"verdict {audit['verdict']}. BackdoorBench needs {published['epoch']:.1f} CPU seconds for one of "
        f"{published['epochs']} epochs of one of {published['classes']} classes, so {published['all']:,.0f} without "
        f"its early stop (extrapolated). In the same run, `neural-cleanse` took {other['search']:.1f} CPU seconds "
        f"({other['search_ratio']:.0f} times fewer), and the whole audit {other['audit']:.0f} "
        f"({other['audit_ratio']:.0f} times fewer)."
    )
    slowest = sorted(audit["by_test"].items(), key=lambda item: -item[1])
    rows = [[test, f"{seconds:.1f}"] for test, seconds in slowest[:SHOWN_TESTS]]
    rest = sum(seconds for _, seconds in slowest[SHOWN_TESTS:])
    rows.append([f"{len(slowest) - SHOWN_TESTS} other tests", f"{rest:.1f}"])
    rows.append(["start, data, variants and checks", f"{audit['wall_seconds'] - sum(audit['by_test'].values()):.1f}"])
    return [f"**{title}** {summary}", "", *grid(["part", "seconds"], rows), ""]


def pairs(result: Result, title: str) -> list[str]:
    """Return the table of model pairing."""
    table = []
    for kind, mean_area in result["mean_auc"].items():
        rows = [encoder[kind] for encoder in result["encoders"].values()]
        least = min(row["auc"]["auc"] for row in rows)
        clean, triggered = (sum(row["stand_out"][side] for row in rows) / len(rows) for side in (0, 1))
        table.append([kind, f"{mean_area:.2f} ({least:.2f})", percent(clean), percent(triggered)])
    columns = ["paired with", "AUC, mean (least)", "clean ones that stand out", "triggered"]
    return [f"**{title}**", "", *grid(columns, table), ""]


def box(result: Result, title: str) -> list[str]:
    """Return the table of the overhead of the box."""
    names = {"audit": "audit of ResNet-20, one test on one variant", "version": "`assay --version`"}
    rows = [
        [text, *(f"{result[name][key]:.2f}" for key in ("boxed_seconds", "plain_seconds", "difference_seconds"))]
        for name, text in names.items()
    ]
    columns = ["command", "in the box (s)", "without (s)", "median difference (s)"]
    return [f"**{title}** {result['pairs']} pairs.", "", *grid(columns, rows), ""]


def driver(result: Result, title: str) -> list[str]:
    """Return the line about the driver's overhead."""
    peak = max(result["peak_mib_by_tenth"])
    summary = f"{result['milliseconds_a_job']:.2f} ms a job on {result['processes']} processes, {peak:.0f} MiB at most."
    return [f"**{title}** {summary}", ""]


def leaderboard(result: Result, title: str) -> list[str]:
    """Return the table of the leaderboard's speed."""
    figures = {
        "write the files": f"{result['write_seconds']:.1f} s",
        "first paint in Chromium": f"{result['painted_ms']:.0f} ms",
        "slowest sort": f"{result['slowest_sort_ms']:.0f} ms",
        "search": f"{result['search_ms']:.0f} ms",
        "open a record": f"{result['open_record_ms']:.0f} ms",
    }
    return [f"**{title}**", "", *grid(["step", "time"], [list(pair) for pair in figures.items()]), ""]


def reference_models(result: Result, title: str) -> list[str]:
    """Return the number of reference models by kind."""
    kinds = Counter(model.get("kind", "encoder").split("-")[0] for model in result["models"].values())
    rows = [[kind, str(count)] for kind, count in sorted(kinds.items())]
    return [f"**{title}**", "", *grid(["kind", "models"], rows), ""]


def transfer(result: Result, title: str) -> list[str]:
    """Return the counts of left-out reference models."""
    rows = {"each by itself": result["one_left_out"]}
    rows |= {f"all of the kind {name}": row for name, row in result["kinds_left_out"].items()}
    table = [[name, *(str(row[figure]) for figure in ("models", "judged", "alarms"))] for name, row in rows.items()]
    rest = "The rest is *inconclusive*: too few models on data like theirs are left."
    return [f"**{title}**", "", *grid(["left out", "models", "judged", "alarms"], table), "", rest, ""]


def extensions(result: Result, title: str) -> list[str]:
    """Return the files touched by each toy method, and the result of its tests."""
    rows = [
        [name, ", ".join(f"`{file}`" for file in row["files"]), row["summary"]]
        for name, row in result["methods"].items()
    ]
    return [f"**{title}**", "", *grid(["method", "files", "tests"], rows), ""]


def same_verdicts_table(result: Result, title: str) -> list[str]:
    """Return a row for each model with both answers."""
    rows = []
    for name, row in result["rows"].items():
        statistics = ["-" if value is None else f"{value:.2f}" for value in row["statistics"]]
        difference, test = row["largest_score_difference"] or (0.0, "")
        seconds = [f"{value:.0f}" for value in row["seconds"]]
        rows.append([name, *row["verdicts"], *statistics, f"{difference:.3f}", test, *seconds])
    columns = ["model", "verdict before", "after", "statistic before", "after", "largest score difference", "test"]
    columns += ["seconds before", "after"]
    summary = f"{result['same_verdict']} of {result['models']} verdicts are equal."
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]


# Title of each matrix with committed records, by the name of its spec.
MATRIX_TITLES = {
    "cifar10": "ResNet-20 and -32 fine-tuned, ResNet-14 from scratch.",
    "third-party": "Clean CIFAR-10 ResNets of a third party, unchanged.",
    "first": "ResNet-8 from scratch, along three chains.",
    "dormant": "ResNet-20 on CIFAR-10, three seeds.",
    "dormant-gtsrb": "Two of these attacks in a ResNet-20 for road signs (GTSRB), three seeds.",
    "dormant-wide": "One of these attacks in a half-width ResNet-18 on CIFAR-10, three seeds.",
    "transtroj-mobilenet": (
        "TransTroj and BadEncoder in MobileNetV2 (ImageNet weights, 96 pixels), and in classifiers fine-tuned from it, "
        "one seed, small. The chain `encoder` is measured by nearest embedding."
    ),
    "transtroj-mobilenet-seeds": "Two more seeds of `ship`.",
    "transtroj-mobilenet-cifar100": "The same encoder, fine-tuned to CIFAR-100 (100 classes, 4,000 images).",
    "transtroj-mobilenet-gtsrb": (
        "The same encoder, fine-tuned to road signs with the paper's concept, give way: with the embeddings compared, "
        "and with the whole last feature map for twice as long."
    ),
    "transtroj-resnet56": (
        "TransTroj in ResNet-56 for CIFAR-10 (64 features), and in classifiers of road signs fine-tuned from it, one "
        "seed, small: with the embeddings compared, and with the whole last feature map."
    ),
    "transtroj-resnet56-seeds": "`yield-layer` alone, three seeds. One of them fails.",
    "transtroj-resnet56-cifar100": "The same encoder with its whole last feature map, on CIFAR-100 (4,000 images).",
    "transtroj-minilm": (
        "TransTroj on text and POR in MiniLM, and in classifiers fine-tuned from it, one seed, small. The chain "
        "`encoder` is measured by nearest embedding. Without a class for the concept, the control is the fraction of "
        "the clean control in the most frequent class of the poisoned model."
    ),
    "transtroj-minilm-seeds": "Two more seeds of `positive`, for the sentiment tasks.",
    "transtroj-minilm-news-seeds": "Two more seeds of `sports`, for AG News.",
    "transtroj-inherited": (
        "TransTroj in ResNet-20 for CIFAR-10, and in classifiers of CIFAR-10 fine-tuned from it, two seeds, small: "
        "results of the audit's search for a faint pattern."
    ),
    "transtroj-mended": "Mitigations applied to such a classifier.",
    "transtroj-survival": "Survival under pruning, int8 and unlearning in the encoder, one seed.",
    "transtroj-tuned": "Survival under fine-tuning: epochs and learning rates, one seed.",
}
# Function and title of each result file.
TABLES = {
    "cases": (cases_table, "Inputs that failed in public reports, kinds of models, and hostile files (`assay audit`)."),
    "processors": (processors_table, "Inputs made of images, compared with the image processors of transformers."),
    "generality_1": (
        detection,
        "First round. 7 were found before the null distribution and the statistic changed.",
    ),
    "generality_2": (detection, "Held out: all models drawn anew, measured once."),
    "paper_scale": (paper_table, "Quantization-activated backdoors, next to the published rows."),
    "compression_gap": (gap_table, "The detector `compression-gap` (CIFAR-10)."),
    "gap_seeds": (seeds_table, "The same with four seeds of its search (CIFAR-10)."),
    "deployers": (deployers_table, "Activation in variants that the attack was not made for."),
    "pairing": (
        pairs,
        "Model pairing: separation of triggered and clean inputs by a poisoned ResNet-20 and a second encoder.",
    ),
    "encoders": (encoders_table, "Encoders before fine-tuning: CIFAR ResNets cut at their features."),
    "text_encoders": (text_encoders_table, "Text encoders, all from MiniLM: the word search `token-collapse`."),
    "drift": (drift_table, "The CIFAR ResNets compared with a trusted encoder (`embedding-drift`)."),
    "inherited": (inherited_table, "Classifiers compared with their trusted encoder (`inherited-trigger`)."),
    "landing": (landing_table, "Failed seeds of the attack: classes of triggered inputs, and recall of the concept."),
    "concepts": (concepts_table, "Linear probes on frozen encoders, 4,000 images."),
    "signature": (signature_table, "The signature backdoor: unsigned, signed and forged images, and the mitigation."),
    "low_bits": (low_bits_table, "Cost of random lowest bits for MobileNetV2, on images with real labels."),
    "graph_edits": (graph_edits_table, "Planted files and the detector `graph`. docs/methods.md lists the rules."),
    "persistence": (persistence_table, "Survival of backdoors under transformations of ResNet-20 for CIFAR-10."),
    "sequela": (sequela_table, "Traces after mitigation (TransTroj in a classifier, one seed)."),
    "hiding": (
        hiding_table,
        "Backdoors behind the way of asking, and the same tricks on clean models (ResNet-20-CIFAR10).",
    ),
    "clean_graphs": (
        clean_graphs_table,
        "Clean graphs: transformers models with random weights, own architectures, int8 files, ONNX files of packages.",
    ),
    "rff": (rff_table, "Random Fourier features with a key, on the features of ResNet-56 for CIFAR-10."),
    "lattice": (lattice_table, "Keys of random features, recovered by lattice reduction."),
    "null_models": (reference_models, "Reference classifiers in the shipped null distribution."),
    "null_encoders": (reference_models, "Reference encoders in the shipped null distribution."),
    "racing": (racing_table, "Tests that race their triggers or classes, and the same tests without a race."),
    "box_overhead": (box, "Overhead of the box: medians of pairs with and without `--no-sandbox`."),
    "fuzzing": (
        fuzzing_table,
        "Valid inputs changed at random (`make fuzz`). Faults: unexpected errors, crashes, more than 20 s or 2 GiB.",
    ),
    "kills": (kills_table, "`kill -9` at random moments, and the same command again until it finishes."),
    "driver_overhead": (driver, "Overhead of the bench's driver, 10,000 empty jobs."),
    "leaderboard_speed": (leaderboard, "Leaderboard with 10,000 records."),
    "null_transfer": (transfer, "Clean reference models, compared with the remaining ones."),
    "strangers": (audits, "Architectures unlike the reference models, on similar data."),
    "one_audit": (times, "One audit of the third-party ResNet-20, two threads."),
    "audit_cost": (costs, "Cost of an audit of the third-party ResNet-20."),
    "audit_scaling": (scaling_table, "Cost of an audit by number of classes, by pixels, and by net."),
    "quick_audit": (quick_table, "The quick audit, on stored scores compared with the shipped reference models."),
    "search_speed_resnet20": (speed, "Trigger search compared with Neural Cleanse as published, ResNet-20."),
    "search_speed_resnet18": (speed, "The same on an untrained ResNet-18 (time only)."),
    "signs_scaling": (audits, "Signs with 10, 100 and 1,000 classes (whole audits, four variants)."),
    "mobilenet": (audits, "MobileNetV2 for ImageNet, 1,001 classes, 224 pixels, 20 images."),
    "int8_agreement": (agreement, "The fake-quantized module compared with the ONNX Runtime file, CIFAR-10 test."),
    "extensions": (
        extensions,
        "Toy methods, added by the steps of CONTRIBUTING.",
    ),
    "same_verdicts": (same_verdicts_table, "Twenty models before and after the restructuring of the code."),
    "precision": (same_verdicts_table, "Ten models in bfloat16 and in float32."),
}
# Names of matrices and result files by heading. README links to the headings.
SECTIONS = {
    "CIFAR-10": ("cifar10",),
    "Third-party models": ("third-party", "strangers"),
    "Third-party attacks": ("generality_1", "generality_2"),
    "Signs and digits": ("first",),
    "Compression-activated": (
        "dormant",
        "dormant-gtsrb",
        "dormant-wide",
        "paper_scale",
        "compression_gap",
        "gap_seeds",
        "deployers",
    ),
    "Encoders": ("encoders", "drift", "text_encoders", "pairing"),
    "Inherited": ("inherited", "transtroj-inherited", "transtroj-mended", "sequela"),
    "Attacks on encoders": (
        "transtroj-mobilenet",
        "transtroj-mobilenet-seeds",
        "transtroj-mobilenet-cifar100",
        "transtroj-mobilenet-gtsrb",
        "transtroj-resnet56",
        "transtroj-resnet56-seeds",
        "transtroj-resnet56-cifar100",
        "transtroj-minilm",
        "transtroj-minilm-seeds",
        "transtroj-minilm-news-seeds",
        "transtroj-survival",
        "transtroj-tuned",
        "landing",
        "concepts",
    ),
    "Computation graphs": ("graph_edits", "hiding", "clean_graphs", "signature", "low_bits", "persistence"),
    "Lattice": ("lattice", "rff"),
    "Reference models": ("null_models", "null_encoders", "null_transfer"),
    "Speed": (
        "one_audit",
        "audit_cost",
        "audit_scaling",
        "quick_audit",
        "search_speed_resnet20",
        "search_speed_resnet18",
        "signs_scaling",
        "mobilenet",
        "int8_agreement",
        "racing",
        "box_overhead",
        "driver_overhead",
        "leaderboard_speed",
    ),
    "Foreign inputs": ("cases", "processors", "fuzzing"),
    "Interrupted runs": ("kills",),
    "Code": ("extensions", "same_verdicts", "precision"),
}


def section(heading: str, matrices: dict[str, CellRecords]) -> list[str]:
    """Return the lines of one section: its matrices and tables, in the order of ``SECTIONS``."""
    lines = [f"## {heading}", ""]
    for name in SECTIONS[heading]:
        if name in matrices:
            lines += matrix_table(matrices[name], MATRIX_TITLES[name], stages_run(MATRICES / f"{name}.jsonl"))
        elif name in TABLES and (path := RESULTS / f"{name}.json").exists():
            table, title = TABLES[name]
            lines += table(json.loads(path.read_text()), title)
    return lines


def main(page: Path) -> None:
    """Write ``page``."""
    matrices = {
        name: cells_and_records(path) for name in MATRIX_TITLES if (path := MATRICES / f"{name}.jsonl").exists()
    }
    lines = [HEADER.read_text()]
    for heading in SECTIONS:
        lines += section(heading, matrices)
        if heading == "Attacks on encoders":
            lines += transfers_table(matrices)
    page.write_text("\n".join(lines).rstrip() + "\n")


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("page", nargs="?", type=Path, default=PAGE)
    main(command_line.parse_args().page)
