"""What the results say of sleeping backdoors: how they fare asleep and awake, and what the gap detector says."""

from __future__ import annotations

from matrix_table import counted

Result = dict


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def gap_table(result: Result, title: str) -> list[str]:
    """A row a model; ``result`` as benchmarks/compression_gap.py writes it."""
    area, plain = (
        f"AUC {result[name]['auc']:.2f} ({result[name]['low']:.2f} to {result[name]['high']:.2f})"
        if result[name]
        else ""
        for name in ("auc", "auc_neural_cleanse")
    )
    said = (
        f"{result['clean']} clean models, {result['planted']} with an attack that sleeps, {result['working']} of which "
        "do (ASR 10 % at most, CA 10 points below the clean twin at most) and wake (ASR 80 % at least) in a form that "
        "still agrees with the model on 85 % of the pictures; the rest are failed attacks. By this test alone, against "
        f"{result['reference_models']} reference models: "
        f"false alarms {counted(result['false_alarms'], result['clean'])}; "
        f"found {counted(result['found'], result['working'])}, {result['right_target']} with the right target. {area}; "
        f"of Neural Cleanse on the full-precision model {plain}."
    )
    head = ("model", "full: CA, ASR", "wakes in: CA, ASR", "statistic", "found in", "target (planted)")
    lines = [
        f"**{title}** {said}",
        "",
        f"| {' | '.join(head)} | found trigger: ASR there, in full |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, model in result["models"].items():
        judged = result["judged"].get(name)
        lines.append(
            _row(name, model, judged) if judged else f"| {name} | {_rates(model['forms']['full'])} | | failed | | | |"
        )
    return [*lines, ""]


def _row(name: str, model: Result, judged: Result) -> str:
    forms, wakes_in = model["forms"], model["wakes_in"]
    form = (judged["form"] or "").partition("/")[0]
    found = forms.get(form, {})
    target = f"{judged['target']} ({model['target']})" if wakes_in else ""
    cells = [
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
    return f"| {' | '.join(cells)} |"


def _rates(row: Result) -> str:
    return ", ".join(percent(row[name]) for name in ("clean_accuracy", "attack_success") if name in row)


def deployers_table(result: Result, title: str) -> list[str]:
    """A row a form, a column a model: CA and ASR, and ASR of the same trigger in the clean twin."""
    models = result["models"]
    lines = [
        f"**{title}** CA / ASR / ASR of the same trigger in the clean twin, in percent.",
        "",
        f"| form | {' | '.join(models)} |",
        "|" + "---|" * (1 + len(models)),
    ]
    for form in dict.fromkeys(form for model in models.values() for form in model["forms"]):
        cells = [_three(model["forms"].get(form)) for model in models.values()]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return [*lines, ""]


def _three(row: Result | None) -> str:
    names = ("clean_accuracy", "attack_success", "clean_twin_attack_success")
    return "" if row is None else " / ".join(f"{100 * row[name]:.1f}" for name in names)


PUBLISHED = {
    "as published, 8 bits": ("91.4 / 1.3", "int8: 88.9 / 99.9"),
    "as published, 4 bits": ("93.4 / 0.5", "int4: 89.5 / 99.7"),
}
"""The quantization attack of Tian et al. (2104.15129), ResNet-18 on CIFAR-10, as EFRAP's authors reproduced it."""


def paper_table(result: Result, title: str) -> list[str]:
    """A row a model, as benchmarks/paper_scale.py writes it, under those of the papers."""
    lines = [
        f"**{title}** CA / ASR (ASR of the same trigger in the clean twin), in percent. Machine: "
        f"{result['origin']['machine']}.",
        "",
        "| model | net | full | compressed | file of ONNX Runtime |",
        "|---|---|---|---|---|",
        *(f"| {name} | resnet18 | {full} | {awake} | |" for name, (full, awake) in PUBLISHED.items()),
    ]
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
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]
