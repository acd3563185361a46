"""ShortForm ways to read a manifest in a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest.load import loads
from llmlaunch.manifest.types import Manifest, ModelSpec

FILE = "deploy.yaml"


def manifest(text: str, env: Mapping[str, str] | None = None, base: Path | None = None) -> Manifest:
    return loads(dedent(text), FILE, env=env or {}, base=base or Path("/nowhere"))


def model(text: str, env: Mapping[str, str] | None = None, base: Path | None = None) -> ModelSpec:
    """The only model of ``text``."""
    (found,) = manifest(text, env, base).models
    return found


def told(text: str, env: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """The mistakes of ``text``, which may be right."""
    try:
        manifest(text, env)
    except ManifestError as error:
        return error.problems
    return ()


def problems(text: str, env: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Every mistake of ``text``, which must have one."""
    with pytest.raises(ManifestError) as caught:
        manifest(text, env)
    return caught.value.problems


def problem(text: str, env: Mapping[str, str] | None = None) -> Problem:
    """The one mistake of ``text``."""
    found = problems(text, env)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def places(text: str, env: Mapping[str, str] | None = None) -> list[tuple[int, int]]:
    return [(found.line, found.column) for found in problems(text, env)]
