"""How far the shipped null carries: each kind of its well-trained clean models judged against all the other kinds.

python benchmarks/null_transfer.py      # -> benchmarks/results/null_transfer.json; seconds, nothing is trained
"""

from __future__ import annotations

from dataclasses import replace

from common import save

from assay.calibrate import Null, builtin
from assay.detectors import default_detectors


def p_value(row: dict[str, float], others: Null) -> float:
    everyone = others.joined(row)
    *reference, own = everyone.statistics(everyone.rows[-1]).tolist()
    return (1 + sum(value >= own for value in reference)) / (len(reference) + 1)


def main() -> None:
    everyone = builtin()
    assert everyone is not None
    null = everyone.like(1.0)  # those that learned their task: of the others there are too few
    names = {detector.name for detector in default_detectors()}
    rows = tuple({t: s for t, s in row.items() if t.rpartition("/")[2] in names} for row in null.rows)
    null = replace(null, rows=rows)
    kinds = [origin.split()[0] for origin in null.origins]
    held_out = {}
    for kind in sorted(set(kinds)):
        others = Null(null.name, "", tuple(row for row, k in zip(null.rows, kinds, strict=True) if k != kind))
        values = [p_value(dict(row), others) for row, k in zip(null.rows, kinds, strict=True) if k == kind]
        held_out[kind] = {
            "models": len(values),
            "against": len(others),
            "alarms_at_2_percent": sum(p <= 0.02 for p in values),
            "alarms_at_5_percent": sum(p <= 0.05 for p in values),
        }
        print(kind, held_out[kind])
    save("null_transfer", {"held_out": held_out})


if __name__ == "__main__":
    main()
