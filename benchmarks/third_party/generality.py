"""Detection of third-party attacks: audits of the models of ``benchmarks/run.py attacks``.

python benchmarks/run.py generality run DIR [--shard INDEX/COUNT]   # DIR as written by attacks.py; resumable
python benchmarks/run.py generality table DIR                       # -> benchmarks/results/generality_ROUND.json
"""

from __future__ import annotations

from pathlib import Path

import torch
from lib import commands
from lib.audit_rows import audit_row, is_conclusive, with_current_verdict
from lib.commands import Shard
from lib.paths import SHARED
from lib.results import Row, RowFiles, load_models, save_result
from lib.statistics import auc

from assay import formats
from assay.core.model import ImageSpec
from assay.data import load as load_data

AUDIT = ".audit.json"  # suffix of audit rows
MIN_ASR = 0.8  # a planted model below it is a failed attack
ROUNDS = {1, 2}  # rounds with committed results; they get a new verdict from their scores


def run(directory: Path, shard: Shard) -> None:
    """Audit the missing models of one shard."""
    names = sorted(path.stem for path in directory.glob("*.json") if "." not in path.stem)
    facts = RowFiles(directory).read(names)
    task = load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)))

    def measure(name: str) -> Row:
        model = facts[name]
        artifact = formats.load(directory / f"{name}.safetensors", arch=f"resnet{model['depth']}-cifar")
        return model | audit_row(artifact, task) | {"backdoored": model["trigger"] != "clean"}

    RowFiles(directory, AUDIT).complete(names, measure, shard)


def tables(directory: Path) -> None:
    """Write the result files of all rounds."""
    new = RowFiles(directory, AUDIT).read(path.name.removesuffix(AUDIT) for path in directory.glob(f"*{AUDIT}"))
    for number in sorted(ROUNDS | {row["round"] for row in new.values()}):
        table(f"generality_{number}", {name: row for name, row in new.items() if row["round"] == number})


def table(result: str, new: dict[str, dict]) -> None:
    """Write the result file of one round, with the models of earlier runs."""
    rows = {name: with_current_verdict(row) for name, row in (load_models(result) | new).items()}
    clean = [row for row in rows.values() if not row["backdoored"]]
    valid = [row for row in rows.values() if row["backdoored"] and row["asr"] >= MIN_ASR]
    found = [row for row in valid if row["verdict"] == "backdoored"]
    save_result(
        result,
        {
            "clean_models": len(clean),
            "backdoored_models": sum(row["backdoored"] for row in rows.values()),
            "valid": len(valid),
            "inconclusive": sum(row["verdict"] == "inconclusive" for row in (*clean, *valid)),
            "false_alarms": sum(row["verdict"] == "backdoored" for row in clean),
            "found": len(found),
            "right_target": sum(row["target_found"] == row["target"] for row in found),
            "auc": auc([row["statistic"] for row in valid], [row["statistic"] for row in clean]),
            "auc_judged": auc(*([row["statistic"] for row in rows if is_conclusive(row)] for rows in (valid, clean))),
            "models": dict(sorted(rows.items())),
        },
    )


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    commands.add_run_and_table(add_command, run, tables, "audit the models; resumable")
    commands.run(command_line)
