"""Names of models with a tag, as Ollama's clients write them: ``name`` and ``name:latest`` are the same. Pure."""

from __future__ import annotations

from llmlaunch.gateway.routing.route_table import RouteTable

_LATEST = ":latest"


def untagged(name: str, table: RouteTable) -> str:
    """The name in ``table`` that ``name`` means; ``name`` itself if there is none."""
    other = name.removesuffix(_LATEST) if name.endswith(_LATEST) else name + _LATEST
    for names in (table.serving, table.expected):
        if name in names:
            return name
        if other in names:
            return other
    return name
