"""What the results say of backdoors in the computation and in random features."""

from __future__ import annotations

from itertools import groupby
from statistics import mean

from lib.table_parts import grid, percent


def signature_table(result: dict, title: str) -> list[str]:
    """A row for each model and tier."""
    columns = ["model, tier", "same logits, unsigned", "signed: obey", "after PNG", "largest change", "PSNR", "forged"]
    columns += ["ms an image (clean)", "low bits random: ASR (control), CA"]
    rows = []
    for name, row in result["models"].items():
        same = [sum(pair[place] for pair in row["identical"].values()) for place in (0, 1)]
        forged = [sum(pair[place] for pair in row["forgeries"].values()) for place in (0, 1)]
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
    said = "Forgeries: images with the bits of another image, with one flipped bit, with another class, or with random bits."
    return [f"**{title}** {said}", "", *grid(columns, rows), ""]


def rff_table(result: dict, title: str) -> list[str]:
    """A row for each kind of key, means over seeds."""
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
            ", ".join(f"{100 * mean(row[f'{net}_{move}'] for row in rows):.0f} %" for move in ("key", "other"))
            for net in ("honest", "keyed")
        )
        relus.append([f"{spike:g}", f"{length:g}", honest, keyed])
    return [
        f"**{title}** Means over three seeds. A key is many times as long as the inputs: see there.",
        "",
        *grid(columns, keys),
        "",
        *grid(["random ReLUs: spike", "move", "honest model: key, other", "keyed model: key, other"], relus),
        "",
    ]


def lattice_table(result: dict, title: str) -> list[str]:
    """A row for each cell; and the power of tests of distributions."""
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
        f"numbers at noise {harder['cell'][2]:g}, which would need {harder['needed']}.",
        "",
        *grid(["numbers", "key over", "noise", "features", "keys found", "by", "seconds"], rows),
        "",
        "Generic tests at a level of 5 %: the share of keyed layers of 16 numbers that they see, by the key's length. "
        "The construction's own key has length 8.",
        "",
        *grid(["length", *tests], power),
        "",
    ]


def clean_graphs_table(result: dict, title: str) -> list[str]:
    """What was read, and what could not be."""
    alarms, read = result["alarms"]
    unread = [f"{name} ({row['reason']})" for name, row in result["models"].items() if row["status"] != "ok"]
    names = ", ".join(name for name, row in result["models"].items() if row["status"] == "ok")
    more = f" Not read: {'; '.join(unread)}." if unread else ""
    return [f"**{title}** False alarms: {alarms} of {read}. {names}.{more}", ""]


def graph_edits_table(result: dict, title: str) -> list[str]:
    """A row for each backdoor, a column a model: the rules that it breaks, and where it joins the net."""
    (found, of), (alarms, clean) = result["found"], result["alarms"]
    models = result["models"]
    rows = []
    for what in next(iter(models.values())):
        tried = [model.get(what) for model in models.values()]
        rows.append([what, *("" if row is None else _broken(row) for row in tried)])
    said = f"Found: {found} of {of}. False alarms: {alarms} of {clean}. In bold: the verdict is *backdoored*."
    return [f"**{title}** {said}", "", *grid(["transformation", *models], rows), ""]


def _broken(row: dict) -> str:
    said = " ".join(row["rules"]) or "nothing"
    said = f"**{said}**" if row["verdict"] == "backdoored" else said
    return f"{said}, at {row['joins at']}" if row["joins at"] else said


def persistence_table(result: dict, title: str) -> list[str]:
    """A row for each transformation, a column a backdoor: ASR, its control, and accuracy; and of random features."""
    models, judged = result["models"], result["pictures"][1]
    rows = [[what, *(_left(model[what]) for model in models.values())] for what in next(iter(models.values()))]
    kept = ("clean_accuracy", "flips_key", "flips_scrambled", "flips_key_honest_net")
    features = [[what, *(f"{100 * row[name]:.1f} %" for name in kept)] for what, row in result["features"].items()]
    said = f"ASR (control: the same trigger on the clean model after the same transformation), accuracy, of {judged} images."
    return [
        f"**{title}** {said}",
        "",
        *grid(["after", *models], rows),
        "",
        *grid(["random features", "accuracy", "flips: key", "scrambled key", "key, honest model"], features),
        "",
    ]


def _left(row: dict) -> str:
    if "not possible" in row:
        return "not possible"
    asr, control = (100 * row[name]["value"] for name in ("attack_success", "control"))
    return f"{asr:.1f} ({control:.1f}), {100 * row['clean_accuracy']['value']:.1f}"


def low_bits_table(result: dict, title: str) -> list[str]:
    """One line."""
    low, high = result["loss_interval"]
    return [
        f"**{title}** {percent(result['clean_accuracy'])} before, a loss of {result['loss_in_points']:.2f} "
        f"points ({low:.2f} to {high:.2f}) after; {result['crops']:,} crops of 20 images, 96 pixels.",
        "",
    ]
