"""What a plain scalar is: a number, a boolean, nothing, or text."""

from __future__ import annotations

import pytest

from tests.unit.manifest.reading import model, problem


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("'~'", "~")],
)
def test_plain_words_are_no_booleans_times_or_dates(text: str, value: str) -> None:
    assert model(f"models: [{{model: {text}, names: x, engine: command, command: [y]}}]").model == value


def test_scalars_of_the_core_schema() -> None:
    args = "{a: 0x1F, b: 0o17, c: 1e3, d: -2, e: +3, f: .5, g: True, h: ~, i: 007, j: 1_000, k: !!str 3}"
    found = model(f"models: [{{model: m, engine_args: {args}}}]").engine_args
    assert found == {
        "a": 31, "b": 15, "c": 1000.0, "d": -2, "e": 3, "f": 0.5, "g": True, "h": None, "i": "007", "j": "1_000", "k": "3",
    }  # fmt: skip


def test_huge_numbers_are_wrong_and_no_traceback() -> None:
    for digits in (20, 400, 5000):
        for key in ("port", "replicas", "vram", "gpus", "stop_grace", "max_model_len", "max_concurrency"):
            found = problem(f"models: [{{model: m, {key}: {'9' * digits}}}]\n")
            assert (found.line, found.column) == (1, len("models: [{model: m, : ") + len(key) + 1)
