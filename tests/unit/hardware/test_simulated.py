"""Boxes in words and saved inventories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.errors import HardwareError
from llmlaunch.hardware import cards, simulated
from llmlaunch.hardware.types import (
    ComputeMode,
    Gpu,
    GpuProcess,
    Inventory,
    Link,
    LinkKind,
    MemoryKind,
    MigDevice,
)

MIB = 1 << 20
TEXT = st.text(max_size=12)
SIZE = st.integers(0, 1 << 40)
MIGS = st.builds(
    MigDevice,
    TEXT,
    TEXT,
    SIZE,
    SIZE,
    SIZE,
    st.integers(0, 14),
    st.integers(0, 7),
    st.sampled_from(MemoryKind),
)
PROCESSES = st.builds(GpuProcess, st.integers(1, 1 << 22), st.none() | SIZE, TEXT, st.booleans())
GPUS = st.builds(
    Gpu,
    index=st.integers(0, 100), uuid=st.uuids().map(lambda u: f"GPU-{u}"), name=TEXT, pci_bus=TEXT, total_bytes=SIZE,
    reserved_bytes=SIZE, used_bytes=SIZE, free_bytes=SIZE, utilisation=st.none() | st.integers(0, 100),
    temperature=st.none() | st.integers(-20, 120), power_watts=st.none() | st.floats(0, 2000),
    power_limit_watts=st.none() | st.floats(0, 2000),
    compute_capability=st.none() | st.tuples(st.integers(1, 20), st.integers(0, 9)), mig_enabled=st.booleans(),
    mig=st.lists(MIGS, max_size=2).map(tuple),
    processes=st.none() | st.lists(PROCESSES, max_size=2).map(tuple),
    lost=TEXT, memory=st.sampled_from(MemoryKind), memory_error=TEXT, compute_mode=st.sampled_from(ComputeMode),
)  # fmt: skip
INVENTORIES = st.builds(
    Inventory,
    gpus=st.lists(GPUS, max_size=3, unique_by=lambda gpu: gpu.uuid).map(lambda gpus: tuple(sorted(gpus, key=lambda g: g.index))),
    links=st.lists(st.builds(Link, TEXT, TEXT, st.sampled_from(LinkKind), st.integers(0, 18)), max_size=2).map(tuple),
    driver=TEXT, cuda=TEXT, note=TEXT, simulated=st.booleans(), visible=st.none() | st.lists(TEXT, max_size=2).map(tuple),
    mps=st.booleans(),
)  # fmt: skip


def test_a_box_in_words() -> None:
    box = simulated.parse("2xA100-80GB, 1xL4,1x24GiB")
    assert [gpu.name for gpu in box.gpus] == [
        "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", "NVIDIA L4", "simulated GPU 24GiB",
    ]  # fmt: skip
    assert [gpu.index for gpu in box.gpus] == [0, 1, 2, 3]
    assert len({gpu.uuid for gpu in box.gpus}) == len({gpu.pci_bus for gpu in box.gpus}) == 4
    first = box.gpus[0]
    assert (first.total_bytes, first.used_bytes) == (81920 * MIB, 0)
    assert first.free_bytes == first.total_bytes - first.reserved_bytes
    assert box.gpus[3].free_bytes == 24 << 30
    assert box.simulated
    kinds = {(link.a, link.b): link.kind for link in box.links}
    assert len(kinds) == 6
    assert kinds[first.uuid, box.gpus[1].uuid] is LinkKind.NVLINK
    assert kinds[first.uuid, box.gpus[2].uuid] is LinkKind.HOST_BRIDGE


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("1xrtx-4090", "NVIDIA GeForce RTX 4090"),
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("1xL4-24GB", "NVIDIA L4"),
        ("1xH100", "NVIDIA H100 80GB HBM3"),
        ("1xNVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
        ("A100-40GB", "NVIDIA A100-SXM4-40GB"),
        ("1 x V100-32GB", "Tesla V100-SXM2-32GB"),
        ("2*T4", "Tesla T4"),
    ],
)
def test_spelling_does_not_matter(text: str, name: str) -> None:
    assert simulated.parse(text).gpus[0].name == name


@pytest.mark.parametrize(
    ("text", "size"),
    [("2x24GiB", 24 << 30), ("1x80GB", 76293 * MIB), ("1x500MiB", 500 * MIB), ("1x1.5G", 1536 * MIB)],
)
def test_bare_sizes(text: str, size: int) -> None:
    assert simulated.parse(text).gpus[0].total_bytes == size


@pytest.mark.parametrize("text", ["0", "none", " none "])
def test_a_box_without_gpus(text: str) -> None:
    assert simulated.parse(text) == Inventory(note="a simulated box without GPUs", simulated=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4xA101", "nearest: A10"), ("2xL4,", "is not COUNTxNAME"), ("0xL4", "is not COUNTxNAME"), ("x", "is not a known GPU"),
        ("9999xL4", "more than"), ("99999999xL4", "more than"), (" ", "is not COUNTxNAME"),
        ("-1xL4", "is not a known GPU"), ("L4-80GB", "is not a known GPU"), ("1x0GiB", "is not a valid size"),
        ("A100-60GB", "is not a known GPU"), ("1x99999999TiB", "is not a known GPU"), ("1x9999999999GiB", "is not a valid size"),
    ],
)  # fmt: skip
def test_wrong_boxes(text: str, words: str) -> None:
    with pytest.raises(HardwareError, match=words):
        simulated.parse(text)


@given(st.text(max_size=20))
def test_any_text_is_a_box_or_one_error(text: str) -> None:
    try:
        simulated.parse(text)
    except HardwareError:
        pass


def test_every_known_gpu_can_be_named_both_ways() -> None:
    for short, card in cards.CARDS.items():
        (gpu,) = simulated.parse(f"1x{short}").gpus
        assert (gpu.name, gpu.total_bytes) == (card.name, card.total * MIB)
        # Some names stand for several amounts of memory.
        same_name = [other.total * MIB for other in cards.reported_as(card.name)]
        assert simulated.parse(card.name).gpus[0].total_bytes == same_name[0]
        assert 0 <= card.reserved < card.total
    for alias, short in cards.ALIASES.items():
        assert simulated.parse(alias) == simulated.parse(short)


@pytest.mark.parametrize(
    ("text", "name", "capability", "gib"),
    [
        ("1xGB10", "NVIDIA GB10", (12, 1), 119),
        ("DGX Spark", "NVIDIA GB10", (12, 1), 119),
        ("1xJetson AGX Thor", "NVIDIA Thor", (11, 0), 122),
        ("Jetson-AGX-Orin-64GB", "Orin (nvgpu)", (8, 7), 61),
        ("AGX Orin 32GB", "Orin (nvgpu)", (8, 7), 29),
        ("Jetson Orin Nano", "Orin (nvgpu)", (8, 7), 7),
    ],
)
def test_gpus_that_use_main_memory(text: str, name: str, capability: tuple[int, int], gib: int) -> None:
    (gpu,) = simulated.parse(text).gpus
    assert (gpu.name, gpu.compute_capability, gpu.total_bytes >> 30) == (name, capability, gib)
    assert gpu.memory is MemoryKind.MAIN
    assert cards.integrated(name)


@pytest.mark.parametrize("text", ["GH200", "GB200", "GB300", "B300", "RTX PRO 6000", "L40S", "RTX 5070 Ti"])
def test_gpus_with_memory_of_their_own(text: str) -> None:
    (gpu,) = simulated.parse(text).gpus
    assert gpu.memory is MemoryKind.OWN
    assert not cards.integrated(gpu.name)


@given(INVENTORIES)
def test_an_inventory_survives_json(inventory: Inventory) -> None:
    assert simulated.load(json.dumps(simulated.to_json(inventory))) == inventory


def test_from_a_file(tmp_path: Path) -> None:
    box = simulated.parse("2xL4")
    path = tmp_path / "box.json"
    path.write_text(json.dumps(simulated.to_json(box)))
    assert simulated.load(path) == box
    assert simulated.load(str(path)) == box
    assert simulated.from_spec(str(path)) == box
    assert simulated.from_spec("2xL4") == box


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"), ("[]", "no list of gpus"), ("{}", "no list of gpus"), ('{"gpus": 1}', "no list of gpus"),
        ('{"gpus": [{}]}', "index"), ('{"gpus": [], "format": 9}', "its format is 9"), ('{"gpus": [], "links": [{}]}', "'a'"),
        ('{"gpus": [1]}', "not an inventory"), ('{"gpus": [], "driver": 5}', "not text"),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "box.json"
    path.write_text(content)
    with pytest.raises(HardwareError, match=words) as caught:
        simulated.load(path)
    assert str(path) in caught.value.message


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="No such file"):
        simulated.from_spec(str(tmp_path / "none.json"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareError, match="cannot be read"):
        simulated.load(tmp_path / "binary.json")


def test_two_gpus_with_one_uuid() -> None:
    content = simulated.to_json(simulated.parse("2xL4"))
    content["gpus"][1]["uuid"] = content["gpus"][0]["uuid"]
    with pytest.raises(HardwareError, match="duplicate GPU uuid"):
        simulated.load(json.dumps(content))


PATHS = st.sampled_from(
    ["index", "uuid", "total_bytes", "mig", "processes", "compute_capability", "power_watts", "lost"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(PATHS, JSON, st.sampled_from(["gpus", "links", "visible", "note"]))
def test_damaged_inventories_raise_one_error(key: str, value: Any, part: str) -> None:
    first: dict[str, Any] = simulated.to_json(simulated.parse("2xL4"))
    first["gpus"][0][key] = value
    second = {**simulated.to_json(simulated.parse("2xL4")), part: value}
    for content in (first, second):
        try:
            simulated.load(json.dumps(content))
        except HardwareError:
            pass
