"""What somebody meant."""

from __future__ import annotations

import pytest

from llmlaunch.common.spelling import closest, nearest

WORDS = ("gpu_count", "names", "Qwen/Qwen3-0.6B", "max_model_len")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("gpu_cout", "gpu_count"),
        ("GPU_COUNT", "gpu_count"),
        ("qwen/qwen3-0.6b", "Qwen/Qwen3-0.6B"),
        ("temperature", ""),
        ("", ""),
    ],
)
def test_the_nearest_word(word: str, meant: str) -> None:
    assert nearest(word, WORDS) == meant


def test_how_near_is_near_enough() -> None:
    assert nearest("namespace", ["names"], cutoff=0.7) == "names"
    assert nearest("namespace", ["names"], cutoff=0.8) == ""


def test_nothing_is_near_where_nothing_is_known() -> None:
    assert nearest("names", []) == ""


def test_several_words_best_first() -> None:
    assert closest("l4", ["H100", "L40S", "L4"], 3, cutoff=0.4) == ["L4", "L40S"]


def test_a_long_word_costs_no_time() -> None:
    assert nearest("x" * 1_000_000, ["x" * 100]) == "x" * 100
