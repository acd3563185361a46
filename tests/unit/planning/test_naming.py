"""Names of components."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.planning.naming import slug, stems
from tests.unit.planning.builders import model, processes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2", "smollm2"),
        ("vicuna-7b-v1.5", "vicuna-7b-v1.5"),
        ("Qwen2.5-7B", "qwen2.5-7b"),
        ("org/name", "org-name"),
        ("a b", "a-b"),
        ("--", "model"),
        ("模型", "model"),
        ("x" * 99, "x" * 48),
    ],
)
def test_slugs(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_names_that_look_alike_are_told_apart() -> None:
    upper, lower = model(names=("Foo",)), model("smollm2", names=("foo",))
    first, second = stems([upper, lower], ())
    assert second == "foo"  # spelt exactly so
    assert first.startswith("foo-x")
    assert stems([lower, upper], ()) == (second, first)  # whatever the order
    assert stems([upper], ()) == ("foo",)


def test_a_neighbour_does_not_rename_what_runs() -> None:
    running = tuple(processes(model(names=("Foo",))).values())
    first, second = stems([model(names=("foo",)), model("smollm2", names=("Foo",))], running)
    assert second == "foo"
    assert first.startswith("foo-x")


@given(st.lists(st.text(alphabet="aA-.1/ é", min_size=1, max_size=5), min_size=1, max_size=8, unique=True))
def test_component_names_are_unique_and_plain(names: list[str]) -> None:
    found = processes(*(model(names=(name,), replicas=2) for name in names))
    assert len(found) == 2 + 2 * len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for name in found)
