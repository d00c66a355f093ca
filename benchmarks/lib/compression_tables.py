"""What the results say of sleeping backdoors: how they fare asleep and awake, and what the gap detector says."""

from __future__ import annotations

from lib.matrix_table import counted
from lib.table_parts import area, grid, percent

Result = dict


def gap_table(result: Result, title: str) -> list[str]:
    """A row a model; ``result`` as benchmarks/run.py compression_gap writes it."""
    ours, plain = (f"AUC {area(result[name])}" if result[name] else "" for name in ("auc", "auc_neural_cleanse"))
    said = (
        f"{result['clean']} clean models, {result['planted']} with a compression-activated attack, {result['working']} of which "
        "are valid: ASR at most 10 % and CA at most 10 points below the clean control in full precision, ASR at least 80 % in "
        "a variant with 85 % agreement. The rest are failed attacks. By this test alone, against "
        f"{result['reference_models']} reference models: "
        f"false alarms {counted(result['false_alarms'], result['clean'])}; "
        f"found {counted(result['found'], result['working'])}, {result['right_target']} with the right target. {ours}; "
        f"of Neural Cleanse on the full-precision model {plain}."
    )
    columns = ["model", "full: CA, ASR", "active in: CA, ASR", "statistic", "found in", "target (planted)"]
    rows = []
    for name, model in result["models"].items():
        judged = result["judged"].get(name)
        failed = [name, _rates(model["forms"]["full"]), "", "failed", "", "", ""]
        rows.append(_row(name, model, judged) if judged else failed)
    return [f"**{title}** {said}", "", *grid([*columns, "found trigger: ASR there, in full"], rows), ""]


def _row(name: str, model: Result, judged: Result) -> list[str]:
    forms, wakes_in = model["forms"], model["wakes_in"]
    form = (judged["form"] or "").partition("/")[0]
    found = forms.get(form, {})
    target = f"{judged['target']} ({model['target']})" if wakes_in else ""
    return [
        name,
        _rates(forms["full"]),
        f"{wakes_in}: {_rates(forms[wakes_in])}" if wakes_in else "",
        f"{judged['statistic']:.1f}" + (", found" if judged["found"] else ""),
        form if wakes_in or judged["found"] else "",
        target,
        f"{percent(found.get('found'))}, {percent(found.get('found_in_full'))}"
        if "found" in found and wakes_in
        else "",
    ]


def _rates(row: Result) -> str:
    return ", ".join(percent(row[name]) for name in ("clean_accuracy", "attack_success") if name in row)


def deployers_table(result: Result, title: str) -> list[str]:
    """A row a form, a column a model: CA and ASR, and ASR of the same trigger in the clean control."""
    models = result["models"]
    forms = dict.fromkeys(form for model in models.values() for form in model["forms"])
    rows = [[form, *(_three(model["forms"].get(form)) for model in models.values())] for form in forms]
    said = "CA / ASR / ASR of the same trigger in the clean control, in percent."
    return [f"**{title}** {said}", "", *grid(["form", *models], rows), ""]


def _three(row: Result | None) -> str:
    names = ("clean_accuracy", "attack_success", "clean_twin_attack_success")
    return "" if row is None else " / ".join(f"{100 * row[name]:.1f}" for name in names)


PUBLISHED = {
    "as published, 8 bits": ("91.4 / 1.3", "int8: 88.9 / 99.9"),
    "as published, 4 bits": ("93.4 / 0.5", "int4: 89.5 / 99.7"),
}
"""The quantization attack of Tian et al. (2104.15129), ResNet-18 on CIFAR-10, as EFRAP's authors reproduced it."""


def paper_table(result: Result, title: str) -> list[str]:
    """A row a model, as benchmarks/run.py paper_scale writes it, under those of the papers."""
    rows = [[name, "resnet18", full, awake, ""] for name, (full, awake) in PUBLISHED.items()]
    for name, model in result["models"].items():
        forms = model.get("forms", {})
        awake = next((form for form in forms if form.startswith("int")), "")
        cells = [
            name,
            model.get("arch", "not finished"),
            _three(forms.get("full")),
            f"{awake}: {_three(forms.get(awake))}",
            _three(forms.get("ort")),
        ]
        rows.append(cells)
    machine = result["origin"]["machine"]
    said = f"CA / ASR (ASR of the same trigger in the clean control), in percent. Machine: {machine}."
    columns = ["model", "architecture", "full", "compressed", "file of ONNX Runtime"]
    return [f"**{title}** {said}", "", *grid(columns, rows), ""]
