"""Settings of a config that ask for files from elsewhere."""

from __future__ import annotations

import pytest

from assay.core.errors import UnusableInput
from assay.formats.huggingface.build import refuse_code


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "owner/name"},
        {"backbone": "resnet50"},
        {"backbone_config": {"backbone": "owner/name"}},
        {"layers": [{"use_timm_backbone": True}]},
        {"use_pretrained_backbone": True},
        {"architecture": "hf-hub:owner/name"},
        {"model_args": {"pretrained": True}},
        {"model_args": {"checkpoint_path": "/tmp/weights.bin"}},
        {"attn_implementation": "owner/kernels"},
    ],
)
def test_settings_for_files_from_elsewhere_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UnusableInput, match="files from elsewhere"):
        refuse_code(settings, "config.json")


def test_a_backbone_described_in_the_config_and_its_origin_pass() -> None:
    refuse_code({"backbone": None, "backbone_config": {"model_type": "resnet"}, "use_timm_backbone": False}, "c")
    refuse_code({"_name_or_path": "owner/name", "pretrained_cfg": {"hf_hub_id": "timm/x", "url": ""}}, "c")
