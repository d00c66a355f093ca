"""What the results say of encoders: which are found poisoned."""

from __future__ import annotations

from matrix_table import counted

TESTS = ("full/embedding-collapse", "full/embedding-collapse-patch")


def encoders_table(result: dict, title: str) -> list[str]:
    """A row for each encoder; ASR by nearest embedding, before any fine-tuning."""
    area = result["auc"]
    lines = [
        f"**{title}** False alarms: {counted(*result['alarms'])} clean encoders. Found: {counted(*result['found'])}. "
        + (f"AUC {area['auc']:.2f} ({area['low']:.2f} to {area['high']:.2f}). " if area else "")
        + "Scores count how far embeddings collapse: 1 more is e times nearer to one point.",
        "",
        "| encoder | net | pictures | ASR (control) | faint, patch | verdict | p | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["models"].items():
        asr = ""
        if row["poisoned"]:
            asr = f"{100 * row['rates']['attack_success']['value']:.0f} % ({100 * row['control']['value']:.0f} %)"
        scores = ", ".join("-" if (score := row["findings"][test][0]) is None else f"{score:.2f}" for test in TESTS)
        p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
        cells = [name, row["net"], row["data"], asr, scores, row["verdict"], p, f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {name} | not run yet | | | | | | |" for name in result["not_yet_run"]]
    return [*lines, ""]
