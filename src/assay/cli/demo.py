"""``assay demo``: the offline demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli import options, outputs, screen

if TYPE_CHECKING:
    from assay.core.result import Audit
    from assay.nn.metrics import BackdoorMetrics


def demo(out: options.Out = Path("assay-demo"), seed: options.Seed = 0) -> int:
    """Train a model on traffic signs, plant a backdoor in a copy, compress it and audit both. Works offline."""
    outputs.check_folder(out)
    with outputs.json_output(None):
        import torch

        from assay.cli.loading import shown
        from assay.demo import DemoConfig
        from assay.demo import demo as run

        # A second thread gains little for models this small. On a busy machine it made training ten times slower.
        torch.set_num_threads(1)
        with screen.progress("starting") as step:
            result = run(out, DemoConfig(seed=seed), progress=step)
        _show(result.measured, result.audits)
        screen.write(f"Both reports on one page: {shown(result.index)}")
    return 0


def _show(measured: Mapping[str, BackdoorMetrics], audits: Mapping[str, Audit]) -> None:
    from assay.report.formatting import format_percent
    from assay.report.view import page_of

    rows = [
        (name, format_percent(rates.clean_accuracy.value), format_percent(rates.attack_success.value))
        for name, rates in measured.items()
    ]
    columns = ("model", "clean accuracy", "trigger success")
    screen.table("The planted backdoor in each variant", columns, rows, right=columns[1:])
    for name, audit in audits.items():
        page = page_of(audit)
        screen.write(f"Audit of the {name} model: {page.sentence} ({page.reason})")
