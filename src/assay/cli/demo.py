"""``assay demo``: the offline tour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli import options, outputs, screen

if TYPE_CHECKING:
    from assay.demo import Demo


def demo(out: options.Out = Path("assay-demo"), seed: options.Seed = 0) -> int:
    """Train a net on traffic signs, backdoor a copy, compress it, audit both: offline, in under four minutes."""
    outputs.check_folder(out)
    with outputs.json_output(None):
        import torch

        from assay.cli.loading import shown
        from assay.demo import Settings
        from assay.demo import demo as run

        # On nets this small a second thread gains little, and on a busy machine it made training ten times slower.
        torch.set_num_threads(1)
        with screen.progress("starting") as step:
            result = run(out, Settings(seed=seed), progress=step)
        _show(result)
        screen.write(f"Both reports side by side: {shown(result.index)}")
    return 0


def _show(result: Demo) -> None:
    from assay.report.formatting import format_percent
    from assay.report.view import page_of

    rows = [
        (name, format_percent(m.clean_accuracy.value), format_percent(m.attack_success.value))
        for name, m in result.measured.items()
    ]
    columns = ("model", "right on clean signs", "trigger succeeds")
    screen.table("The backdoor in every form of the model", columns, rows, right=columns[1:])
    for name, audit in result.audits.items():
        page = page_of(audit)
        screen.write(f"Audit of the {name} model: {page.sentence} ({page.reason})")
