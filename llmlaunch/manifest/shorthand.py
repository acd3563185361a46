"""The short form: ``model[@host[@port[@gpus]]]``, one line a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmlaunch.common.addresses import bracketed

GRAMMAR = "model[@host[@port[@gpus]]]"
_LONG = "a path that contains @ needs the long form (model: PATH)"


@dataclass(frozen=True, slots=True)
class ShortForm:
    """The parts as given; None where a part is absent or empty, which means the default."""

    model: str
    host: str | None = None
    port: int | str | None = None
    """The text itself when it is no number."""
    gpus: str | None = None


def parse(text: str) -> ShortForm:
    """Read one short form. Raises ValueError with what is wrong.

    IPv6 hosts may stand in brackets or bare. A path that contains ``@`` itself cannot be told from the parts: the long form takes it.
    Whether host, port and gpus make sense is checked where all values are, so that every mistake of a line is told.
    """
    parts = [part.strip() for part in text.split("@")]
    if len(parts) > 4:
        raise ValueError(f"too many @ in {text!r}; {_LONG}")
    model, host, port, gpus = (parts + [""] * 4)[:4]
    if not model:
        raise ValueError("the model is missing before the first @")
    for name, part in (("host", host), ("port", port)):
        if "/" in part:
            raise ValueError(f"the {name} {part!r} is a path; {_LONG}")
    return ShortForm(model, _host(host), _port(port), gpus or None)


def render(short: ShortForm) -> str:
    """The text that :func:`parse` reads as ``short``."""
    host = bracketed(short.host or "")
    port = "" if short.port is None else str(short.port)
    parts = [short.model, host, port, short.gpus or ""]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return "@".join(parts)


def _host(text: str) -> str | None:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return text or None


def _port(text: str) -> int | str | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text or None
