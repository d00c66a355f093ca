"""Tables of compression-activated backdoors: rates by variant, and results of the detector compression-gap."""

from __future__ import annotations

from lib.matrix_table import counts_with_interval
from lib.table_parts import area, grid, percent

Result = dict


def gap_table(result: Result, title: str) -> list[str]:
    """Return a row per model of benchmarks/run.py compression_gap."""
    ours, plain = (f"AUC {area(result[name])}" if result[name] else "" for name in ("auc", "auc_neural_cleanse"))
    summary = (
        f"{result['clean']} clean models, {result['planted']} with a compression-activated attack, "
        f"{result['working']} of them valid. A valid attack meets two conditions. Full precision: ASR at most "
        "10 %, CA at most 10 points below the clean control. A variant with 85 % agreement: ASR at least 80 %. The "
        "rest are failed attacks. "
        f"By this test alone, against {result['reference_models']} reference models: "
        f"false alarms {counts_with_interval(result['false_alarms'], result['clean'])}; "
        f"found {counts_with_interval(result['found'], result['working'])}, "
        f"{result['right_target']} with the right target. {ours}; "
        f"of Neural Cleanse on the full-precision model {plain}."
    )
    columns = ["model", "full: CA, ASR", "active in: CA, ASR", "statistic", "found in", "target (planted)"]
    rows = []
    for name, model in result["models"].items():
        verdict = result["judged"].get(name)
        failed = [name, _rates(model["forms"]["full"]), "", "failed", "", "", ""]
        rows.append(_row(name, model, verdict) if verdict else failed)
    return [f"**{title}** {summary}", "", *grid([*columns, "found trigger: ASR there, in full"], rows), ""]


def seeds_table(result: Result, title: str) -> list[str]:
    """Return a row per model of benchmarks/run.py gap_seeds."""
    columns = ["model", "variant", "scores, one for each seed", "target (planted)", "success", "seconds"]
    rows = [
        [
            name,
            row["variant"],
            ", ".join(f"{score:.1f}" for score in row["scores"]),
            ", ".join("none" if target is None else str(target) for target in row["targets"])
            + ("" if row["target"] is None else f" ({row['target']})"),
            ", ".join(percent(rate) for rate in row["success"]),
            ", ".join(f"{seconds:.0f}" for seconds in row["seconds"]),
        ]
        for name, row in result["models"].items()
    ]
    return [f"**{title}** A search that ends early has the score -2.", "", *grid(columns, rows), ""]


def _row(name: str, model: Result, verdict: Result) -> list[str]:
    variants, active_in = model["forms"], model["wakes_in"]
    variant = (verdict["form"] or "").partition("/")[0]
    row = variants.get(variant, {})
    target = f"{verdict['target']} ({model['target']})" if active_in else ""
    return [
        name,
        _rates(variants["full"]),
        f"{active_in}: {_rates(variants[active_in])}" if active_in else "",
        f"{verdict['statistic']:.1f}" + (", found" if verdict["found"] else ""),
        variant if active_in or verdict["found"] else "",
        target,
        f"{percent(row.get('found'))}, {percent(row.get('found_in_full'))}" if "found" in row and active_in else "",
    ]


def _rates(row: Result) -> str:
    return ", ".join(percent(row[name]) for name in ("clean_accuracy", "attack_success") if name in row)


def deployers_table(result: Result, title: str) -> list[str]:
    """Return CA, ASR, and ASR of the clean control, a row per variant and a column per model."""
    models = result["models"]
    forms = dict.fromkeys(form for model in models.values() for form in model["forms"])
    rows = [[form, *(_three_rates(model["forms"].get(form)) for model in models.values())] for form in forms]
    summary = "CA / ASR / ASR of the same trigger in the clean control, in percent."
    return [f"**{title}** {summary}", "", *grid(["variant", *models], rows), ""]


def _three_rates(row: Result | None) -> str:
    names = ("clean_accuracy", "attack_success", "clean_twin_attack_success")
    return "" if row is None else " / ".join(f"{100 * row[name]:.1f}" for name in names)


# Quantization attack of Tian et al. (2104.15129), ResNet-18 on CIFAR-10, as reproduced by EFRAP's authors.
PUBLISHED = {
    "as published, 8 bits": ("91.4 / 1.3", "int8: 88.9 / 99.9"),
    "as published, 4 bits": ("93.4 / 0.5", "int4: 89.5 / 99.7"),
}


def paper_table(result: Result, title: str) -> list[str]:
    """Return a row per model of benchmarks/run.py paper_scale, after the published rows."""
    rows = [[name, "resnet18", full, active, ""] for name, (full, active) in PUBLISHED.items()]
    for name, model in result["models"].items():
        variants = model.get("forms", {})
        active = next((variant for variant in variants if variant.startswith("int")), "")
        cells = [
            name,
            model.get("arch", "not finished"),
            _three_rates(variants.get("full")),
            f"{active}: {_three_rates(variants.get(active))}",
            _three_rates(variants.get("ort")),
        ]
        rows.append(cells)
    machine = result["origin"]["machine"]
    summary = f"CA / ASR (ASR of the same trigger in the clean control), in percent. Machine: {machine}."
    columns = ["model", "architecture", "full", "compressed", "file of ONNX Runtime"]
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]
