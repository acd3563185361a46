"""Names of components: short, unique, and stable when the manifest grows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from llmlaunch.manifest.types import ModelSpec
from llmlaunch.planning.types import Component, ProcessSpec

CONTROLLER = "controller"
API = "api"
STOP_GRACE = "--stop-grace"
"""The API server's flag: seconds that requests in flight have to finish at its end."""


def slug(name: str) -> str:
    """``name`` in lower case letters, digits, dots, dashes and underscores, at most 48 characters."""
    text = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    return text[:48].rstrip("-._") or "model"


def stems(models: Sequence[ModelSpec], running: Sequence[ProcessSpec]) -> tuple[str, ...]:
    """One stem per model, all different; replica ``n`` is called ``<stem>-<n>``, counted from 1.

    Where two served names give one slug, the model that runs under it keeps it, then the one that is spelt exactly so, then the
    first. The others get a suffix that depends on their name alone, so that a new neighbour renames nobody.
    """
    owners = {
        spec.name.rpartition("-")[0]: spec.names[0]
        for spec in running
        if spec.component is Component.WORKER and spec.names
    }
    groups: dict[str, list[int]] = {}
    for index, model in enumerate(models):
        groups.setdefault(slug(model.names[0]), []).append(index)
    result = [""] * len(models)
    for plain, members in groups.items():
        owner = owners.get(plain)
        first = min(members, key=lambda i: (models[i].names[0] != owner, models[i].names[0] != plain, i))
        for index in members:
            name = models[index].names[0]
            result[index] = plain if index == first else f"{plain}-{_digest(name)}"
    return tuple(result)


def _digest(name: str) -> str:
    # A letter first: "a-1" with a numeric suffix would read like a replica's number.
    return "x" + hashlib.blake2b(name.encode(), digest_size=3).hexdigest()
