"""Plot of benchmarks/results/audit_scaling.json: CPU seconds of a whole audit by case -> docs/audit_scaling.svg.

python benchmarks/run.py scaling_plot   # needs pip install -c constraints.txt -e '.[plots]'
"""

from __future__ import annotations

from lib import commands
from lib.paths import ROOT
from lib.results import load_models

from assay.auditing.plan import Phase, phase_of
from assay.registry import all_detectors

PLOT = ROOT / "docs" / "audit_scaling.svg"
PHASES = {detector.name: phase_of(detector).name.lower() for detector in all_detectors()}
OTHER = "other"
KINDS = (*(phase.name.lower() for phase in Phase), OTHER)


def seconds_by_kind(row: dict) -> dict[str, float]:
    """Return the CPU seconds of each phase of an audit; all else counts as other.

    A row has the wall seconds of its tests. Next to other programs they are longer than the CPU seconds.
    """
    seconds, share = dict.fromkeys(KINDS, 0.0), row["cpu_seconds"] / row["wall_seconds"]
    for test, duration in row["by_test"].items():
        seconds[PHASES[test.partition("/")[2]]] += duration * share
    seconds[OTHER] += row["cpu_seconds"] - sum(seconds.values())
    return seconds


def main() -> None:
    """Write the plot."""
    import matplotlib as mpl  # an extra of the package: --help works without it
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "audit_scaling"  # the same bytes from the same figures
    models = load_models("audit_scaling")
    figure = Figure(figsize=(8, 0.5 + 0.4 * len(models)), layout="constrained")
    axes = figure.subplots()
    names = list(models)[::-1]
    left = dict.fromkeys(names, 0.0)
    for kind in KINDS:
        widths = [seconds_by_kind(models[name])[kind] for name in names]
        axes.barh(names, widths, left=list(left.values()), label=kind)
        left = {name: left[name] + width for name, width in zip(names, widths, strict=True)}
    axes.set_xlabel("CPU seconds of a whole audit, one thread, float32")
    figure.legend(loc="outside upper center", ncols=len(KINDS))
    figure.savefig(PLOT, metadata={"Date": None})
    print(f"-> {PLOT.relative_to(ROOT)}")


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    main()
