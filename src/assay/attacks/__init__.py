"""Attacks: one paper = one file. Each is a stage that plants a backdoor in a build."""

from assay.attacks.badnets import BadNets
from assay.attacks.blended import Blended

__all__ = ["BadNets", "Blended"]
