"""The decision whether a planted attack meets its criteria."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.bench.spec import ValidityCriteria


def why_invalid(rates: Mapping[str, Any], inactive: Mapping[str, Any] | None, criteria: ValidityCriteria) -> str:
    """Return the missed criteria as one text; empty for a valid attack.

    Args:
        rates: rates right after planting, by name; of a compression-activated backdoor in its activating variant.
        inactive: attack success rate (ASR) of a compression-activated backdoor in the model as planted; None for other
            backdoors.
        criteria: the limits.
    """
    asr, control, after, before = (
        float(rates[name]["value"]) for name in ("attack_success", "control", "clean_accuracy", "control_accuracy")
    )
    missed = []
    if inactive is not None and inactive["value"] > criteria.inactive_asr:
        missed.append(
            f"ASR {inactive['value']:.3f} in the model as planted, before activation, is above {criteria.inactive_asr}"
        )
    if asr < criteria.asr:
        model = "right after planting" if inactive is None else "in the variant that activates the backdoor"
        missed.append(f"ASR {asr:.3f} {model} is below {criteria.asr}")
    if before - after > criteria.drop:
        missed.append(f"clean accuracy fell by {before - after:.3f}, more than {criteria.drop}")
    if asr - control < criteria.lift:
        missed.append(
            f"the same trigger has ASR {control:.3f} on the clean control; expected at least {criteria.lift} less"
        )
    if before < criteria.accuracy:
        missed.append(f"the clean control's accuracy of {before:.3f} is below {criteria.accuracy}")
    return "; ".join(missed)
