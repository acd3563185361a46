"""Names of the ways to choose a replica."""

from __future__ import annotations

import pytest

from llmlaunch.common.dispatch_methods import DEFAULT, METHODS, dispatch_method


def test_the_names_that_fastchat_has_are_among_them() -> None:
    assert {"shortest_queue", "lottery"} < set(METHODS)
    assert DEFAULT in METHODS


@pytest.mark.parametrize("method", METHODS)
def test_known_methods(method: str) -> None:
    assert dispatch_method(method) == method


def test_an_unknown_method_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"'fastest'.*shortest_queue, lottery"):
        dispatch_method("fastest")
