"""Table of CA, ASR and RA with their controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.cli import screen

if TYPE_CHECKING:
    from assay.nn.metrics import BackdoorMetrics, Rate

# Descriptions of CA, ASR and RA.
OF_CLASSES = ("clean samples, right class", "triggered samples, target class", "triggered samples, right class")
OF_EMBEDDINGS = (
    "clean samples, nearest to themselves",
    "triggered samples, nearest to the concept",
    "triggered samples, nearest to themselves",
)


def show_measurements(
    measured: BackdoorMetrics, control: Rate | None, clean: Rate | None, *, encoder: bool = False
) -> None:
    """Write the table.

    Args:
        measured: Rates of the backdoored model.
        control: ASR of the same trigger on a clean model, if there is one.
        clean: CA of that clean model.
        encoder: The rates compare embeddings.
    """
    from assay.report.formatting import format_percent

    accuracy, success, robust = OF_EMBEDDINGS if encoder else OF_CLASSES
    rows = [
        ("CA", accuracy, measured.clean_accuracy),
        ("ASR", success, measured.attack_success),
        ("RA", robust, measured.robust_accuracy),
        ("control", success.replace("triggered samples", "without trigger"), measured.untriggered),
    ]
    if control is not None:
        rows.append(("control", "clean model, same trigger", control))
    if clean is not None:
        rows.append(("control", "clean model, clean samples", clean))
    cells = [
        (name, content, format_percent(rate.value), _interval(rate), f"{rate.total:,}") for name, content, rate in rows
    ]
    screen.table("", ("", "fraction of", "rate", "95 % interval", "samples"), cells, right=("rate", "samples"))


def _interval(rate: Rate) -> str:
    from assay.report.formatting import format_percent

    low, high = rate.interval
    return f"{format_percent(low)} to {format_percent(high)}"
