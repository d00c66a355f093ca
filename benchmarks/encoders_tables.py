"""What the results say of encoders: which are found poisoned, and what is made of them."""

from __future__ import annotations

from matrix_table import counted
from table_parts import area, grid, percent

TESTS = ("full/embedding-collapse", "full/embedding-collapse-patch")

SHOWN_CLASSES = 3
"""Of each task, those that the probe tells from the others best."""


def encoders_table(result: dict, title: str) -> list[str]:
    """A row for each encoder; ASR by nearest embedding, before any fine-tuning."""
    rows = []
    for name, row in result["models"].items():
        asr = ""
        if row["poisoned"]:
            asr = f"{100 * row['rates']['attack_success']['value']:.0f} % ({100 * row['control']['value']:.0f} %)"
        scores = ", ".join("-" if (score := row["findings"][test][0]) is None else f"{score:.2f}" for test in TESTS)
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        rows.append([name, row["net"], row["data"], asr, scores, row["verdict"], p, f"{row['seconds']:.0f}"])
    rows += [[name, "not run yet", *[""] * 6] for name in result["not_yet_run"]]
    said = (
        f"False alarms: {counted(*result['alarms'])} clean encoders. Found: {counted(*result['found'])}. "
        + (f"AUC {area(result['auc'])}. " if result["auc"] else "")
        + "Scores count how far embeddings collapse: 1 more is e times nearer to one point."
    )
    columns = ["encoder", "net", "pictures", "ASR (control)", "faint, patch", "verdict", "p", "s"]
    return [f"**{title}** {said}", "", *grid(columns, rows), ""]


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
        f"**{title}** Membership: AUC of the loss as a sign of a picture's having been trained on. Re-planted: steps "
        "of BadNets until its ASR is 90 %.",
        "",
        *grid(columns, rows),
        "",
    ]


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
