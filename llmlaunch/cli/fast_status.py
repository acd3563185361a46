"""The fast path of ``llmlaunch status`` around typer's parser.

Typer builds a pydantic adapter for every option, and importing pydantic costs more than the whole verb. ``status`` is what
scripts and prompts ask again and again, so its plain spellings are read here. Whatever is not one of them, ``--help``, a typing
error, a completion request, returns None and goes the ordinary way, with its messages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypedDict


class StatusOptions(TypedDict):
    """What the command line of ``status`` says."""

    file: str | None
    name: str | None
    as_json: bool
    watch: bool


_VALUES = {"-f": "file", "--file": "file", "--name": "name"}
_FLAGS = {"--json": "as_json", "--watch": "watch"}


def status_options(words: Sequence[str]) -> StatusOptions | None:
    """The options of ``llmlaunch status …`` when ``words`` (without the program's name) are exactly that."""
    if not words or words[0] != "status" or any(key.startswith("_LLMLAUNCH") for key in os.environ):
        return None
    options = StatusOptions(file=None, name=None, as_json=False, watch=False)
    rest = iter(words[1:])
    for word in rest:
        key, equals, value = word.partition("=")
        if word in _FLAGS:
            options[_FLAGS[word]] = True  # type: ignore[literal-required]
        elif word in _VALUES or (equals and key in _VALUES and key.startswith("--")):
            given = value if equals else next(rest, None)
            if given is None or given.startswith("-"):
                return None
            options[_VALUES[key]] = given  # type: ignore[literal-required]
        else:
            return None
    return options
