"""What a deployment may be called."""

from __future__ import annotations

import pytest

from llmlaunch.common.deployment_name import is_deployment_name


@pytest.mark.parametrize("name", ["a", "0", "lab", "lab-2", "gpu_box.v1", "x" * 63, "a..b"])
def test_names(name: str) -> None:
    assert is_deployment_name(name)


@pytest.mark.parametrize(
    "name", ["", "x" * 64, "Lab", "-lab", ".lab", "_lab", "..", "a/b", "a b", "lab\n", "läb", "٣"]
)
def test_what_no_deployment_is_called(name: str) -> None:
    assert not is_deployment_name(name)
