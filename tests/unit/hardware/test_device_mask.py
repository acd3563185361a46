"""Device masks, as CUDA reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmlaunch.hardware.device_mask import visible
from llmlaunch.hardware.simulated import parse
from llmlaunch.hardware.types import Gpu, MigDevice

MIG = MigDevice("MIG-aaaa-1", "MIG 1g", 1, 1, 0, 3, 0)
NAMES = ("GPU-aaaa-0", "GPU-aabb-1", "GPU-cccc-2")
SAME = tuple(replace(gpu, uuid=uuid) for gpu, uuid in zip(parse("3xL4").gpus, NAMES, strict=True))
MIXED = (*SAME[:2], replace(parse("1xT4").gpus[0], index=2, uuid=NAMES[2]))
WITH_MIG = (*SAME[:2], replace(SAME[2], mig=(MIG, replace(MIG, uuid="MIG-bbbb-2", gpu_instance=5))))


def mask(value: str, gpus: tuple[Gpu, ...] = SAME, **more: str) -> tuple[str, ...] | None:
    return visible(gpus, {"CUDA_VISIBLE_DEVICES": value, **more})[0]


def test_no_mask_shows_all() -> None:
    assert visible(SAME, {}) == (None, "")


@pytest.mark.parametrize("value", ["", " ", "-1", "none", "void", "NoDevFiles"])
def test_masks_that_hide_everything(value: str) -> None:
    allowed, remark = visible(SAME, {"CUDA_VISIBLE_DEVICES": value})
    assert allowed == ()
    assert "hides every GPU" in remark


@pytest.mark.parametrize("value", ["none", "void", "all", "", "0", "GPU-cccc-2"])
def test_what_is_meant_for_a_container_runtime_is_no_mask(value: str) -> None:
    """With CDI it is "void" in every container that has GPUs."""
    assert visible(SAME, {"NVIDIA_VISIBLE_DEVICES": value}) == (None, "")
    assert mask("2", NVIDIA_VISIBLE_DEVICES=value) == (NAMES[2],)


def test_indexes_uuids_and_the_start_of_uuids() -> None:
    assert mask("2,0") == (NAMES[2], NAMES[0])
    assert mask(" 1 ") == (NAMES[1],)
    assert mask("GPU-cccc-2,GPU-aaaa") == (NAMES[2], NAMES[0])


@pytest.mark.parametrize("value", ["0,7,1", "0,x,1", "0,GPU-zz,1", "0,GPU-aa,1", "0,-1,1"])
def test_the_list_ends_at_the_first_entry_that_names_nothing(value: str) -> None:
    allowed, remark = visible(SAME, {"CUDA_VISIBLE_DEVICES": value})
    assert allowed == (NAMES[0],)
    assert "ignores the rest" in remark


def test_a_gpu_that_is_named_twice() -> None:
    allowed, remark = visible(SAME, {"CUDA_VISIBLE_DEVICES": "0,0"})
    assert allowed == ()
    assert "twice" in remark


def test_mig() -> None:
    assert mask("MIG-bbbb", WITH_MIG) == ("MIG-bbbb-2",)
    assert mask("MIG-GPU-cccc-2/3/0", WITH_MIG) == ("MIG-aaaa-1",)
    assert mask("2", WITH_MIG) == (NAMES[2], "MIG-aaaa-1", "MIG-bbbb-2")


def test_indexes_on_a_mixed_box_are_ambiguous() -> None:
    assert "fastest first" in visible(MIXED, {"CUDA_VISIBLE_DEVICES": "0"})[1]
    assert not visible(SAME, {"CUDA_VISIBLE_DEVICES": "0"})[1]
    assert not visible(MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-cccc"})[1]
    assert not visible(MIXED, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})[1]
