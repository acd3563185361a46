"""What ``up`` was asked for, and the deployment that it has launched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmlaunch.cli.deploy.session import Session
    from llmlaunch.cli.display.live_view import PlainView, TerminalView
    from llmlaunch.control.client import ControlClient
    from llmlaunch.manifest.types import Manifest
    from llmlaunch.planning.types import Plan


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The command line of ``up``."""

    file: str
    name: str | None
    detach: bool
    wait: bool
    timeout_s: float | None
    replace: bool = False
    """Take the place of a running deployment of this name, though another file started it."""

    @property
    def deployment(self) -> str:
        """The name that was given, else the manifest's. Raises ManifestError for a file without a readable one."""
        from llmlaunch.cli.deploy.select import name_to_start

        return self.name or name_to_start(self.file)


@dataclass(frozen=True, slots=True)
class LaunchedDeployment:
    """A plan that its supervisor has accepted."""

    options: UpOptions
    manifest: Manifest
    plan: Plan
    client: ControlClient
    session: Session
    shown: PlainView | TerminalView
    attached: bool
    """True: this process holds the deployment's lifeline, and takes it down when it ends."""
    began: float
    """On the monotonic clock."""

    @property
    def deadline(self) -> float | None:
        """When ``--timeout`` is up, on the monotonic clock; None without one."""
        return None if self.options.timeout_s is None else self.began + self.options.timeout_s

    @property
    def selector(self) -> str:
        """What to add to other verbs so that they mean this deployment."""
        return f" --name {self.plan.deployment}"
