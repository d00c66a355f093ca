"""How far the audit carries beyond its own attacks: models made by benchmarks/run.py attacks.

python benchmarks/run.py generality DIR [SHARD SHARDS]   # DIR as written by foreign_attacks.py; resumable
python benchmarks/run.py generality DIR table            # -> benchmarks/results/generality_ROUND.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from lib.audit_rows import audit_row, is_conclusive, with_current_verdict
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.statistics import auc

from assay import formats
from assay.core.model import ImageSpec
from assay.data import load as load_data

VALID = 0.8
"""Lowest attack success at which a model counts as backdoored; below it the attack did not work."""

KEPT = {1, 2}
"""Rounds whose results are kept: they are judged anew, by the null and the statistic of today."""


def run(directory: Path, shard: int, shards: int) -> None:
    models = {
        path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json")) if "." not in path.stem
    }
    task = load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)))
    for name, facts in list(models.items())[shard::shards]:
        path = directory / f"{name}.audit.json"
        if path.exists():
            continue
        artifact = formats.load(directory / f"{name}.safetensors", arch=f"resnet{facts['depth']}-cifar")
        row = facts | audit_row(artifact, task) | {"backdoored": facts["trigger"] != "clean"}
        path.write_text(json.dumps(row))
        print(name, {k: row[k] for k in ("accuracy", "asr", "verdict", "p_value", "target", "target_found", "seconds")})
        sys.stdout.flush()


def tables(directory: Path) -> None:
    new = {
        path.name.removesuffix(".audit.json"): json.loads(path.read_text()) for path in directory.glob("*.audit.json")
    }
    for number in sorted(KEPT | {row["round"] for row in new.values()}):
        table(f"generality_{number}", {name: row for name, row in new.items() if row["round"] == number})


def table(result: str, new: dict[str, dict]) -> None:
    """The models of one round, those measured in earlier sessions too."""
    rows = {name: with_current_verdict(row) for name, row in (load_models(result) | new).items()}
    clean = [row for row in rows.values() if not row["backdoored"]]
    valid = [row for row in rows.values() if row["backdoored"] and row["asr"] >= VALID]
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2:] == ["table"]:
        tables(Path(sys.argv[1]))
    else:
        run(Path(sys.argv[1]), *([int(text) for text in sys.argv[2:4]] or [0, 1]))
