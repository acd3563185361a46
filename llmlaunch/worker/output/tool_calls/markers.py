"""The markers around calls, which most formats have in common. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmlaunch.worker.output.tool_calls.cursor import Cursor
from llmlaunch.worker.output.tool_calls.types import Leave, Reject, Skip, Step


def marker_step(
    at: Cursor,
    lead: int,
    *,
    opens: Sequence[str] = (),
    skips: Sequence[str] = (),
    leaves: Sequence[str] = (),
) -> Step | None:
    """Return the step over the marker that stands ``lead`` characters after the position.

    ``opens`` begin a section or a call, ``skips`` end a call, ``leaves`` end the section. None while one of them may still
    come to stand there; Reject if none does.
    """
    for marker in (*opens, *skips, *leaves):
        if at.starts(marker, lead):
            size = lead + len(marker)
            return Leave(size) if marker in leaves else Skip(size, opens=marker in opens)
    waits = any(at.may_start(marker, lead) for marker in (*opens, *skips, *leaves))
    return None if waits else Reject()
