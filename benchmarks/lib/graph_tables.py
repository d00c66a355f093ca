"""Tables of backdoors in the computation graph and in random features."""

from __future__ import annotations

from itertools import groupby
from statistics import mean

from lib.table_parts import grid, percent


def signature_table(result: dict, title: str) -> list[str]:
    """Return a row per model and tier."""
    columns = [
        "model, tier",
        "same logits, unsigned",
        "signed: success",
        "after PNG",
        "largest change",
        "PSNR",
        "forged",
    ]
    columns += ["ms an image (clean)", "low bits random: ASR (control), CA"]
    rows = []
    for name, row in result["models"].items():
        same = [sum(pair[index] for pair in row["identical"].values()) for index in (0, 1)]
        forged = [sum(pair[index] for pair in row["forgeries"].values()) for index in (0, 1)]
        low, times = row["low_bits"], row["milliseconds"]
        cells = [
            name,
            f"{same[0]:,} of {same[1]:,}",
            *(f"{row[key][0]} of {row[key][1]}" for key in ("obey", "obey_after_png")),
            f"{row['largest_change']:g} / 255",
            f"{row['psnr'][0]:.1f} dB and more",
            f"{forged[0]} of {forged[1]:,}",
            f"{times['gated'][0]:.1f} ({times['clean'][0]:.1f})",
            f"{percent(low['attack_success'])} ({percent(low['untriggered'])}), {percent(low['clean_accuracy'])} -> "
            f"{percent(low['clean_accuracy_after'])}",
        ]
        rows.append(cells)
    summary = (
        "Forgeries: images with the bits of another image, with one flipped bit, with another class, or with random "
        "bits."
    )
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]


def rff_table(result: dict, title: str) -> list[str]:
    """Return a row per kind of key, with means over seeds."""
    columns = ["classes", "key over", "noise", "CA honest, keyed", "flips: key", "scrambled key", "random direction"]
    columns += ["after random low bits", "smoothed", "key / input"]
    keys, relus = [], []
    for (classes, key, noise), group in groupby(result["rows"], key=lambda r: (r["classes"], r["key"], r["noise"])):
        rows = list(group)
        shown = [
            100 * mean(row[name] for row in rows)
            for name in (
                *("accuracy_honest", "accuracy", "flips_key", "flips_scrambled", "flips_random"),
                *("flips_key_after_low_bits", "flips_key_smoothed"),
            )
        ]
        cells = [str(classes), f"{key} of 64", f"{noise:g}", f"{shown[0]:.1f}, {shown[1]:.1f} %"]
        cells += [f"{value:.1f} %" for value in shown[2:]]
        keys.append([*cells, format(rows[0]["key_to_input"], ".0f")])
    for (spike, length), group in groupby(result["relus"], key=lambda r: (r["spike"], r["length"])):
        rows = list(group)
        honest, keyed = (
            ", ".join(f"{100 * mean(row[f'{model}_{move}'] for row in rows):.0f} %" for move in ("key", "other"))
            for model in ("honest", "keyed")
        )
        relus.append([f"{spike:g}", f"{length:g}", honest, keyed])
    return [
        f"**{title}** Means over three seeds. A key is many times as long as the inputs (last column).",
        "",
        *grid(columns, keys),
        "",
        *grid(["random ReLUs: spike", "move", "honest model: key, other", "keyed model: key, other"], relus),
        "",
    ]


def lattice_table(result: dict, title: str) -> list[str]:
    """Return a row per cell, and the power of generic tests."""
    broken, harder = result["broken"], result["harder"]
    rows = []
    for row in result["cells"]:
        tries = row["tries"]
        by = {"LLL" if t["block"] == 0 else f"BKZ-{t['block']}" for t in tries if t["found"]}
        cells = [
            *(f"{row[name]:g}" for name in ("width", "key", "noise", "directions")),
            f"{row['found']} of {len(tries)}" + ("" if row["broken_in_notes"] else " (not in the notes' list)"),
            ", ".join(sorted(by)) or "-",
            f"{min(t['seconds'] for t in tries):.0f} to {max(t['seconds'] for t in tries):.0f}",
        ]
        rows.append(cells)
    tests = [name for name in result["power"][0] if name not in ("width", "length", "directions")]
    power = [[f"{row['length']:g}", *(f"{100 * row[test]:.0f} %" for test in tests)] for row in result["power"]]
    return [
        f"**{title}** {broken[0]} of {broken[1]} cells of the notes' list broken. Not tried: {harder['cell'][0]} "
        f"numbers at noise {harder['cell'][2]:g}; they would need {harder['needed']}.",
        "",
        *grid(["numbers", "key over", "noise", "features", "keys found", "by", "seconds"], rows),
        "",
        "Generic tests at a level of 5 %: fraction of detected keyed layers (16 numbers), by length of the key. "
        "The construction's own key has length 8.",
        "",
        *grid(["length", *tests], power),
        "",
    ]


def clean_graphs_table(result: dict, title: str) -> list[str]:
    """Return the readable graphs by result, and a row per unreadable graph with its reason."""
    alarms, count = result["alarms"]
    models = result["models"]
    readable = {
        name: bool(row["score"]) or bool(row.get("file", {}).get("score"))
        for name, row in models.items()
        if row["status"] == "ok"
    }
    rows = [
        [", ".join(name for name, alarm in readable.items() if alarm is raised), result_text]
        for raised, result_text in ((True, "alarm"), (False, "no alarm"))
        if raised in readable.values()
    ]
    rows += [[name, f"not read: `{row['reason']}`"] for name, row in models.items() if name not in readable]
    return [f"**{title}** False alarms: {alarms} of {count}.", "", *grid(["models", "result"], rows), ""]


def graph_edits_table(result: dict, title: str) -> list[str]:
    """Return the broken rules and the position of each backdoor, a column per model."""
    (found, of), (alarms, clean) = result["found"], result["alarms"]
    models = result["models"]
    rows = []
    for name in next(iter(models.values())):
        row_of_models = [model.get(name) for model in models.values()]
        rows.append([name, *("" if row is None else _broken_rules(row) for row in row_of_models)])
    summary = f"Found: {found} of {of}. False alarms: {alarms} of {clean}. In bold: the verdict is *backdoored*."
    return [f"**{title}** {summary}", "", *grid(["backdoor", *models], rows), ""]


def _broken_rules(row: dict) -> str:
    summary = " ".join(row["rules"]) or "nothing"
    summary = f"**{summary}**" if row["verdict"] == "backdoored" else summary
    return f"{summary}, at {row['joins at']}" if row["joins at"] else summary


def persistence_table(result: dict, title: str) -> list[str]:
    """Return ASR, its control, and accuracy: a row per transformation, a column per backdoor."""
    models, test_images = result["models"], result["pictures"][1]
    rows = [
        [change, *(_rates_left(model[change]) for model in models.values())] for change in next(iter(models.values()))
    ]
    rates = ("clean_accuracy", "flips_key", "flips_scrambled", "flips_key_honest_net")
    features = [[change, *(f"{100 * row[name]:.1f} %" for name in rates)] for change, row in result["features"].items()]
    summary = (
        "ASR (control: the same trigger on the clean model after the same transformation), accuracy, of "
        f"{test_images} images."
    )
    return [
        f"**{title}** {summary}",
        "",
        *grid(["after", *models], rows),
        "",
        *grid(["random features", "accuracy", "flips: key", "scrambled key", "key, honest model"], features),
        "",
    ]


def _rates_left(row: dict) -> str:
    if "not possible" in row:
        return "not possible"
    asr, control = (100 * row[name]["value"] for name in ("attack_success", "control"))
    return f"{asr:.1f} ({control:.1f}), {100 * row['clean_accuracy']['value']:.1f}"


def low_bits_table(result: dict, title: str) -> list[str]:
    """Return one line."""
    low, high = result["loss_interval"]
    return [
        f"**{title}** {percent(result['clean_accuracy'])} before, a loss of {result['loss_in_points']:.2f} "
        f"points ({low:.2f} to {high:.2f}) after; {result['crops']:,} crops of 20 images, 96 pixels.",
        "",
    ]


def hiding_table(result: dict, title: str) -> list[str]:
    """Return a row per way of hiding: verdicts of the planted and of the clean models."""
    (missed, planted), (scored, clean) = result["called clean"], result["accused by scores"]
    proven = result["accused by proof"][0]
    rows = [
        [
            row["kind"],
            row["variant"],
            row["format"],
            "planted" if row["planted"] else "clean",
            f"{percent(row['success'])} ({percent(row['control'])})" if row["planted"] else "",
            row["verdict"] + (f", by {row['by']}" if row["by"] else ""),
            f"{row['seconds']:.0f}",
        ]
        for row in result["models"].values()
    ]
    summary = (
        f"Planted models with the verdict *clean*: {missed} of {planted}. Clean models with the verdict *backdoored*: "
        f"{scored} of {clean} by scores, {proven} by a proof."
    )
    columns = ["hidden behind", "variant", "format", "model", "ASR as deployed (control)", "verdict", "seconds"]
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]
