"""Products are timed once per CPU and shape; whatever happens to the file of results costs a quarter of a second at most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llmlaunch.worker.compute import dtype_timing
from llmlaunch.worker.compute.dtype_choice import ProductTimes


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[torch.dtype, int, int]]:
    """The measurements that were made; the cache is empty."""
    calls: list[tuple[torch.dtype, int, int]] = []

    def measure(dtype: torch.dtype, hidden: int, inner: int) -> ProductTimes:
        assert torch.get_num_threads() == 1
        calls.append((dtype, hidden, inner))
        return ProductTimes(float(len(calls)), 10.0 * len(calls))

    monkeypatch.setenv("LLMLAUNCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dtype_timing, "measure", measure)
    return calls


FILE = Path("cache/dtypes.json")


def test_a_shape_is_timed_once_in_both_types(measured: list[tuple[torch.dtype, int, int]]) -> None:
    threads = torch.get_num_threads()

    first = dtype_timing.times("bfloat16", 64, 96)

    assert first == {"bfloat16": ProductTimes(1.0, 10.0), "float32": ProductTimes(2.0, 20.0)}
    assert dtype_timing.times("bfloat16", 64, 96) == first
    assert measured == [(torch.bfloat16, 64, 96), (torch.float32, 64, 96)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("stored", "hidden", "inner"), [("float16", 64, 96), ("bfloat16", 64, 128)])
def test_another_type_or_shape_is_timed_again(
    measured: list[tuple[torch.dtype, int, int]], stored: str, hidden: int, inner: int
) -> None:
    dtype_timing.times("bfloat16", 64, 96)
    dtype_timing.times(stored, hidden, inner)

    assert len(measured) == 4


def test_a_cpu_held_to_other_instructions_is_timed_again(
    measured: list[tuple[torch.dtype, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype_timing.times("bfloat16", 64, 96)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    dtype_timing.times("bfloat16", 64, 96)

    assert len(measured) == 4


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"k": {"bfloat16": [1]}}', '{"k": {"bfloat16": ["a", 2]}}', '{"k": 1}']
)
def test_a_damaged_file_is_set_aside(
    measured: list[tuple[torch.dtype, int, int]], tmp_path: Path, text: str
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / FILE).write_text(text)

    dtype_timing.times("bfloat16", 64, 96)
    dtype_timing.times("bfloat16", 64, 96)

    assert len(measured) == 2
    assert json.loads((tmp_path / FILE).read_text())


def test_a_cache_that_cannot_be_written_is_done_without(
    measured: list[tuple[torch.dtype, int, int]], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")

    assert dtype_timing.times("bfloat16", 64, 96)["bfloat16"].few == 1.0


def test_results_of_shapes_no_longer_used_are_forgotten(
    measured: list[tuple[torch.dtype, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtype_timing, "_MOST_KNOWN", 2)
    for inner in (8, 16, 24):
        dtype_timing.times("bfloat16", 8, inner)

    assert len(json.loads((tmp_path / FILE).read_text())) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("hidden", "inner"), [(8, 16), (64, 33), (4096, 16384)])
def test_every_type_and_shape_can_be_timed(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, hidden: int, inner: int
) -> None:
    monkeypatch.setattr(dtype_timing, "FEW_WEIGHTS", 1 << 16)
    monkeypatch.setattr(dtype_timing, "MANY_WEIGHTS", 1 << 15)

    found = dtype_timing.measure(dtype, hidden, inner)

    assert found.few > 0
    assert found.many > 0
