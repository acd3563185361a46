"""Objects and lists are counted without parsing."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from llmlaunch.worker.api import json_shape


def containers(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + sum(map(containers, value.values() if isinstance(value, dict) else value))


def some(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth > 4 or kind < 0.4:
        return "".join(chance.choices('{["\\\\x\n]', k=chance.randrange(12)))
    if kind < 0.7:
        return [some(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {some(chance, 9): some(chance, depth + 1) for _ in range(chance.randrange(4))}


@pytest.mark.parametrize("window", [1, 7, 1 << 16])
def test_the_count_is_that_of_the_parsed_value(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(json_shape, "WINDOW", window)
    chance = random.Random(1)
    for _ in range(500):
        value = [some(chance)]
        body = json.dumps(value).encode()
        count = containers(value)
        assert not json_shape.has_too_many(body, count)
        assert json_shape.has_too_many(body, count - 1)


def test_a_text_full_of_brackets_is_suspect_and_no_more() -> None:
    body = json.dumps({"prompt": '{"a": [1]}' * 100}).encode()
    assert json_shape.may_have_too_many(body, 150)
    assert not json_shape.has_too_many(body, 150)
    assert not json_shape.may_have_too_many(json.dumps({"prompt": "x" * 1000}).encode(), 150)
    assert json_shape.has_too_many(b"[" * 200, 150)  # that it is no JSON is for the parser to say
