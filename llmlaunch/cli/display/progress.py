"""What a terminal knows of a deployment while something changes, and when the change is over. Pure: values in, answers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llmlaunch.cli.display.render import next_attempt

if TYPE_CHECKING:
    from llmlaunch.control.types import ComponentStatus, ProgressEvent, StatusReport


class StartProgress:
    """The latest state of each component, and which of them are waited for.

    ``wanted`` maps a component to the lowest incarnation that counts: a replica that is about to be restarted is still READY
    for a moment, but in a life that is over. ``removed`` names what a new plan has no place for.
    """

    def __init__(self, wanted: Mapping[str, int] | Iterable[str] = (), removed: Iterable[str] = ()) -> None:
        self.wanted: dict[str, int] = (
            dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted, 0)
        )
        self.removed = tuple(removed)
        self.rows: dict[str, ComponentStatus] = {}
        self.tails: dict[str, tuple[str, ...]] = {}
        self._seeded = False
        self._known_until = 0

    def seed(self, report: StatusReport) -> None:
        """Take a whole report, requested after the command was given."""
        self.rows = {c.name: c for c in report.components}
        self._known_until = report.seq
        self._seeded = True

    def take(self, event: ProgressEvent) -> None:
        """Take one change. One that is older than the last report only adds what the component printed.

        Its number decides, not its time: clocks may be set back.
        """
        if event.log_tail:
            self.tails[event.component.name] = event.log_tail
        if event.seq > self._known_until:
            self.rows[event.component.name] = event.component

    def _in(self, name: str, *phases: str) -> bool:
        row = self.rows.get(name)
        if row is None or row.phase not in phases:
            return False
        # A component that waits for memory is not started, so its incarnation stays the same.
        return row.incarnation >= self.wanted.get(name, 0) or row.why == "memory"

    def missing(self) -> list[str]:
        """What is waited for and not READY."""
        return [name for name in self.wanted if not self._in(name, "ready")]

    def failed(self) -> list[str]:
        """What is waited for and FAILED."""
        return [name for name in self.wanted if self._in(name, "failed")]

    def ended(self) -> list[str]:
        """What is waited for and will not come: somebody stopped it, or took it out of the deployment.

        The command itself starts everything that is waited for, so whatever is stopped was stopped afterwards.
        """
        gone = [name for name in self.wanted if name not in self.rows] if self._seeded else []
        return gone + [
            name for name in self.wanted if name in self.rows and self.rows[name].phase == "stopped"
        ]

    def port_taken(self) -> list[str]:
        """What is waited for and cannot start, because somebody else holds its port."""
        waiting = [name for name in self.wanted if self._in(name, "backoff", "failed")]
        return [name for name in waiting if self.rows[name].why == "port"]

    def not_down(self) -> list[str]:
        """What is waited for and not down yet."""
        return [name for name in self.wanted if self._up(name)]

    def stopping(self) -> list[str]:
        """What is waited for and stopping. What somebody else has started again is not."""
        return [name for name in self.wanted if self._stopping(name)]

    def still_stopping(self) -> list[str]:
        """What is removed and not down yet."""
        return [name for name in self.removed if self._stopping(name)]

    def _stopping(self, name: str) -> bool:
        return name in self.rows and self.rows[name].phase == "stopping"

    def _up(self, name: str) -> bool:
        return name in self.rows and self.rows[name].phase not in ("stopped", "failed")

    def settled(self) -> bool:
        """Whether everything that is waited for is READY, FAILED or ended, and what is removed is down."""
        ended = self.ended()
        here = [name for name in self.wanted if name not in ended]
        return all(self._in(name, "ready", "failed") for name in here) and not self.still_stopping()

    def cannot_serve(self, *, for_good: bool = False) -> bool:
        """Whether nothing can serve: the controller, the gateway or every worker FAILED.

        What was stopped on request is no failure. ``for_good``: nor is what will be tried again.
        """
        kinds: dict[str, list[bool]] = {}
        for row in self.rows.values():
            if row.phase != "stopped":
                over = self._in(row.name, "failed") and not (for_good and row.next_try is not None)
                kinds.setdefault(row.component, []).append(over)
        return any(all(failed) for failed in kinds.values())

    def reason(self, name: str) -> str:
        """Why ``name`` is not READY, with the last lines it printed."""
        row = self.rows.get(name)
        if row is None:
            return f"{name}: " + ("no longer part of the deployment" if self._seeded else "not started")
        why = row.cause or row.progress or "unknown reason"
        if later := next_attempt(row, row.since):
            why += f"; {later}"
        return "\n".join(
            [f"{name}: {row.phase}: {why}", *(f"  | {line}" for line in self.tails.get(name, ()))]
        )
