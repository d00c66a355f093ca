"""The table of CA, ASR and RA beside their controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.cli import screen

if TYPE_CHECKING:
    from assay.metrics import Measured, Rate


def show(measured: Measured, control: Rate | None, clean: Rate | None) -> None:
    """``control`` and ``clean``: ASR of the same trigger and clean model, clean samples, where there is one."""
    rows = [
        ("CA", "clean samples, right", measured.clean_accuracy),
        ("ASR", "triggered, get the target", measured.attack_success),
        ("RA", "triggered, right all the same", measured.robust_accuracy),
        ("control", "without trigger, get the target", measured.untriggered),
    ]
    if control is not None:
        rows.append(("control", "clean model, same trigger", control))
    if clean is not None:
        rows.append(("control", "clean model, clean samples", clean))
    cells = [(name, what, _percent(rate.value), _interval(rate), f"{rate.total:,}") for name, what, rate in rows]
    screen.table("", ("", "what", "share", "95 % interval", "samples"), cells, right=("share", "samples"))


def _interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{_percent(low)} to {_percent(high)}"


def _percent(share: float) -> str:
    from assay.report.words import percent

    return percent(share)
