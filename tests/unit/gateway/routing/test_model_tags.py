"""``name`` and ``name:latest`` are the same model."""

from __future__ import annotations

import pytest

from llmlaunch.gateway.routing.model_tags import untagged
from llmlaunch.gateway.routing.route_table import RouteTable


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain", "plain"),
        ("plain:latest", "plain"),
        ("tagged", "tagged:latest"),
        ("tagged:latest", "tagged:latest"),
        ("promised:latest", "promised"),
        ("size:7b", "size:7b"),
        ("size", "size"),
        ("nobody:latest", "nobody:latest"),
        (":latest", ":latest"),
    ],
)
def test_tags(name: str, found: str) -> None:
    table = RouteTable(
        serving=dict.fromkeys(("plain", "tagged:latest", "size:7b"), ()), expected=frozenset({"promised"})
    )
    assert untagged(name, table) == found
