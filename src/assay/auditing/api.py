"""Public function ``assay.audit``: flat keywords for users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from assay.auditing.config import AuditConfig, DataSource, FindingsFolder, ModelSource
from assay.auditing.run import Callbacks, run_audit
from assay.calibration.null import NullDistribution
from assay.core.options import ModelOptions
from assay.core.progress import Step
from assay.core.result import Audit
from assay.detectors.base import Detector
from assay.stages import variants


def audit(
    model: ModelSource,
    data: DataSource = None,
    *,
    arch: str | None = None,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool = False,
    pooling: str | None = None,
    output: str | None = None,
    labels: bool = True,
    label_column: str | None = None,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector | str] | str | None = None,
    budget: float = math.inf,
    reference: ModelSource | None = None,
    reference_arch: str | None = None,
    reference_pooling: str | None = None,
    reference_output: str | None = None,
    null: NullDistribution | str | Path | None = None,
    seed: int = 0,
    quick: bool = False,
    findings: str | Path | None = None,
    jobs: int = 1,
    progress: Step = lambda step, fraction: None,
) -> Audit:
    """Audit every variant of a model with every detector.

    Args:
        model: A path or hub id as on the command line, an Artifact, or a module in memory.
        data: Clean samples. A source as on the command line, a Task, a Split, or a torch DataLoader or Dataset. Images
            (N, C, H, W) in [0, 1] as a tensor or array, or a pair of images and labels (N,).
        arch: Architecture of a bare .safetensors file.
        shape: (C, H, W) of the input images, or (L,) of texts in tokens; needed for a module in memory.
        mean: Normalization, one value a channel, for pixels in [0, 1].
        std: Normalization, one value a channel.
        features: Cut a classifier before its last linear layer, and audit the resulting encoder.
        pooling: Pooling of a Hugging Face encoder: pooler, cls or mean (see ``formats.load``).
        output: Name of the logits among several outputs of the model; of a tuple, the position.
        labels: False: the data have no labels, even if something looks like labels.
        label_column: Column of the labels in a table, or name of their array in a .npz file; None: a usual name.
        variant_names: Names of ``assay list``, or one text with commas.
        detectors: Names of ``assay list``, one text with commas, or detector objects; None: the default detectors.
        budget: Time limit of the search in seconds.
        reference: The original model of a compressed one, or a trusted encoder; as ``model``.
        reference_arch: ``arch`` of the reference.
        reference_pooling: ``pooling`` of the reference; None: as the model's.
        reference_output: ``output`` of the reference.
        null: Clean reference models, or their file; None: those of the package.
        seed: The same seed gives the same result.
        quick: Run the cheap and telling tests on the model as given only. The verdict is never clean.
        findings: Folder for the findings of finished tests. A later audit with the same model, data, settings and
            folder takes them, and runs the rest. None: nothing is stored.
        jobs: Number of processes that run the tests. Each is a copy (fork) of this one, with cores / jobs threads.
        progress: Callback for the current step, and the fraction done.

    Returns:
        The verdict, all findings, and in ``notes`` all guesses and conversions.

    Raises:
        UnusableInput: The model or the data cannot be used.
    """
    names = variants.parse(variant_names if isinstance(variant_names, str) else tuple(variant_names))
    options = ModelOptions(arch, shape, mean, std, features, pooling, output)
    config = AuditConfig(
        names,
        detectors,
        labels,
        budget,
        reference,
        reference_arch=reference_arch,
        reference_pooling=reference_pooling,
        reference_output=reference_output,
        null=null,
        seed=seed,
        label_column=label_column,
        quick=quick,
        findings=None if findings is None else FindingsFolder(Path(findings)),
        jobs=jobs,
    )
    return run_audit(model, data, options, config, callbacks=Callbacks(progress))
