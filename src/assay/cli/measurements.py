"""The table of CA, ASR and RA beside their controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.cli import screen

if TYPE_CHECKING:
    from assay.nn.metrics import BackdoorMetrics, Rate


OF_CLASSES = ("clean samples, right", "triggered, get the target", "triggered, right all the same")
OF_EMBEDDINGS = (
    "clean samples, nearest to themselves",
    "triggered, nearest to the concept",
    "triggered, to themselves",
)


def show(measured: BackdoorMetrics, control: Rate | None, clean: Rate | None, *, encoder: bool = False) -> None:
    """``control`` and ``clean``: ASR of the same trigger and clean model, clean samples, where there is one."""
    right, obeys, resists = OF_EMBEDDINGS if encoder else OF_CLASSES
    rows = [
        ("CA", right, measured.clean_accuracy),
        ("ASR", obeys, measured.attack_success),
        ("RA", resists, measured.robust_accuracy),
        ("control", obeys.replace("triggered", "without trigger"), measured.untriggered),
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
    from assay.report.formatting import format_percent

    return format_percent(share)
