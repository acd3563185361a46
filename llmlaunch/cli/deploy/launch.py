"""What ``up`` does: plan, make sure that a supervisor runs, hand it the plan, and show what happens until it is time to return."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from llmlaunch.cli.deploy import launch_messages
from llmlaunch.cli.deploy.launched import LaunchedDeployment, UpOptions
from llmlaunch.cli.deploy.port_reassignment import expected_incarnations, reassign_ports
from llmlaunch.cli.deploy.select import refuse_other_file
from llmlaunch.cli.deploy.session import Interrupted, Session, SupervisorGone
from llmlaunch.cli.display.live_view import PlainView, TerminalView, let_go_of_terminal, view
from llmlaunch.cli.display.progress import StartProgress
from llmlaunch.errors import DeadlineError, NotRunningError, PlanError, PortTakenError, StartError

if TYPE_CHECKING:
    from llmlaunch.control.client import ControlClient
    from llmlaunch.control.types import Deployed
    from llmlaunch.manifest.types import Manifest
    from llmlaunch.planning.types import Plan

OLD_ONE_DEADLINE_S = 60.0
"""How long ``up`` waits for a deployment of the same name that is shutting down."""
MOST_MOVES = 10
"""How often components are moved to other ports. Whoever takes more than this does it on purpose."""
NAMES_DEADLINE_S = 30.0
"""How long the endpoint may take to list all names once every replica is READY."""


def launch(options: UpOptions) -> int:
    """Run ``up`` and return its exit code.

    Raises ManifestError, ModelError, PlanError … before anything starts; StartError and DeadlineError afterwards.
    """
    began, shown = time.monotonic(), view()
    with contextlib.ExitStack() as until_the_end:
        launched = _hand_over(options, shown, began, until_the_end)
        if not options.wait:
            shown.say(
                f"{launched.plan.deployment}: starting in the background; "
                f"see: llmlaunch status{launched.selector}"
            )
            return 0
        launched.session.open()
        with launched.session.signals():
            return _stay(launched) if launched.attached else _until_ready(launched)


def _hand_over(
    options: UpOptions,
    shown: PlainView | TerminalView,
    began: float,
    until_the_end: contextlib.ExitStack,
) -> LaunchedDeployment:
    """Plan, and have a supervisor accept the plan; a new one is started for it where there is none."""
    from llmlaunch.control.planning_lock import planning_lock

    _deployed(options, shown)  # waits for one that is shutting down, before others have to wait for us
    with planning_lock(lambda: shown.say("waiting while another `llmlaunch up` makes its plan")):
        manifest, plan, deployed = _plan(options, shown)
        client, created = until_the_end.enter_context(
            _supervised(options.deployment, foreground=not options.detach)
        )
        if not created and client.specs() != deployed.specs:
            # It was changed in the meantime. Ports that this plan found taken may be the deployment's own.
            manifest, plan, _ = _plan(options, shown)
        for note in plan.notes:
            shown.say(f"note: {note}", "dim")
        known = client.status()
        result = client.apply(plan, environment=os.environ)
    if not created:
        shown.say(launch_messages.changes(result))
    wanted = dict.fromkeys((spec.name for spec in plan.processes), 0)
    before = {c.name: c for c in known.components}
    progress = StartProgress(wanted | expected_incarnations(result.restarted, before), result.removed)
    session = Session(client, progress, shown, since=known.seq)
    return LaunchedDeployment(
        options, manifest, plan, client, session, shown, created and not options.detach, began
    )


def _plan(options: UpOptions, shown: PlainView | TerminalView) -> tuple[Manifest, Plan, Deployed]:
    """The plan, and what ran when it was made. Raises what ``assemble`` does, and PlanError for a plan that does not fit."""
    from llmlaunch.assemble import assemble, refuse_unstartable
    from llmlaunch.cli.deploy.gateway_files import check_gateway_files

    deployed = _deployed(options, shown)
    while True:
        try:
            manifest, _, plan = assemble(
                options.file,
                env=os.environ,
                deployed=deployed,
                name=options.deployment,
                check=check_gateway_files,
            )
            if plan.rejections:
                raise PlanError(
                    "\n".join(f"{r.model}: {r.reason}" for r in plan.rejections),
                    hint=f"nothing was started; see the arithmetic: llmlaunch plan {options.file}",
                )
            refuse_unstartable(plan, deployed, os.environ)
        except (PlanError, PortTakenError):
            # Another `up` of this deployment may have been faster: then the ports and memory it took are ours, too.
            now = _deployed(options, shown)
            if now.specs == deployed.specs:
                raise
            deployed = now
            continue
        return manifest, plan, deployed


def _deployed(options: UpOptions, shown: PlainView | TerminalView) -> Deployed:
    """What the deployment's supervisor was told to run. Waits for one that is shutting down; it runs nothing."""
    from llmlaunch.assemble import NOTHING_DEPLOYED
    from llmlaunch.control.client import ControlClient

    with contextlib.suppress(NotRunningError):
        client = ControlClient.connect(options.deployment)
        report = client.status()
        if not report.stopping:
            if not options.replace:
                refuse_other_file(options.deployment, report.manifest, options.file)
            return client.deployed()
        shown.say(f"waiting for {options.deployment} to finish shutting down")
        client.wait_gone(options.timeout_s or OLD_ONE_DEADLINE_S)
    return NOTHING_DEPLOYED


@contextlib.contextmanager
def _supervised(name: str, *, foreground: bool) -> Iterator[tuple[ControlClient, bool]]:
    """The supervisor of ``name`` and whether it is a new one. In the foreground a new one ends when this process does."""
    from llmlaunch.control.supervisor_start import ensure_supervisor

    if not foreground:
        yield ensure_supervisor(name)
        return
    read_end, write_end = os.pipe()
    try:
        try:
            client, created = ensure_supervisor(name, lifeline_fd=read_end)
        finally:
            os.close(read_end)
        yield client, created
    finally:
        os.close(write_end)


def _until_ready(launched: LaunchedDeployment) -> int:
    """Wait for every component, in a deployment that goes on without this process."""
    progress = launched.session.progress

    def lost() -> list[str]:
        return progress.failed() + progress.ended()

    try:
        with launched.shown.live(progress):
            launched = _wait(launched, lambda: bool(lost()) or progress.settled(), launched.deadline)
            if not lost():
                _names_ready(launched, lambda: bool(lost()))
    except Interrupted as interrupted:
        launched.shown.say(
            f"\nno longer waiting: {launched.plan.deployment} goes on in the background; {launch_messages.how_to_look(launched)}"
        )
        # 0 would say that it is ready; shells write "ended by a signal" like this.
        return 128 + interrupted.signum
    except SupervisorGone:
        raise StartError(
            "the supervisor ended while the deployment was starting",
            hint=launch_messages.supervisor_log_hint(launched),
        ) from None
    except DeadlineError as error:
        raise DeadlineError(
            error.message, hint=f"it goes on in the background; {launch_messages.how_to_look(launched)}"
        ) from None
    if lost():
        raise StartError("\n".join(map(progress.reason, lost())), hint=launch_messages.how_to_look(launched))
    launch_messages.show_summary(launched)
    return 0


def _stay(launched: LaunchedDeployment) -> int:
    """Show the start, then whatever changes, until Ctrl-C, a signal, or the end of everything that can serve."""
    progress, shown = launched.session.progress, launched.shown
    try:
        with shown.live(progress):
            launched = _wait(
                launched, lambda: progress.settled() or progress.cannot_serve(), launched.deadline
            )
            if not progress.missing():
                _names_ready(launched, lambda: bool(progress.missing()))
        if not progress.cannot_serve():
            if len(progress.missing()) < len(progress.wanted):
                launch_messages.show_summary(launched)
            launched = _wait(launched, partial(progress.cannot_serve, for_good=True), None)
    except Interrupted as interrupted:
        if interrupted.signum == signal.SIGHUP:
            let_go_of_terminal()
        take_down(launched, f"stopping {launched.plan.deployment}; Ctrl-C again kills")
        return interrupted.exit_code
    except SupervisorGone:
        return _gone(launched)
    except DeadlineError:
        take_down(launched, f"timed out: stopping {launched.plan.deployment}")
        raise
    reasons = "\n".join(map(progress.reason, progress.failed()))
    take_down(launched, f"no component is left that can serve: stopping {launched.plan.deployment}")
    raise StartError(reasons, hint=f"llmlaunch logs NAME{launched.selector} shows everything it printed")


def _wait(
    launched: LaunchedDeployment, done: Callable[[], bool], deadline: float | None
) -> LaunchedDeployment:
    """Wait until ``done``. A component whose port is taken by another program gets a new one, where the manifest allows it."""
    session, progress = launched.session, launched.session.progress
    waiting_for, stuck = partial(launch_messages.not_ready, launched), set[str]()

    def shut_out() -> bool:
        return not stuck.issuperset(progress.port_taken())

    for _ in range(MOST_MOVES):
        session.wait(lambda: shut_out() or done(), deadline, waiting_for)
        if not shut_out():
            return launched
        moved = reassign_ports(launched)
        if moved is None:
            stuck.update(progress.port_taken())
        launched = moved or launched
    session.wait(done, deadline, waiting_for)
    return launched


def take_down(launched: LaunchedDeployment, why: str) -> None:
    """Stop everything and wait until it is gone. Another signal kills."""
    from llmlaunch.cli.deploy.leftovers import wait_until_gone

    session = launched.session
    launched.shown.say(f"\n{why}")
    _shut_down(launched.client, force=False)
    killed = False
    with launched.shown.live(session.progress):
        while True:
            try:
                session.step(0.5)
            except Interrupted:
                if not killed:
                    _shut_down(launched.client, force=True)
                    launched.shown.say("killing")
                killed = True
            except SupervisorGone:
                break
    wait_until_gone(launched.client)
    launched.shown.say(f"{launched.plan.deployment} is down")


def _shut_down(client: ControlClient, *, force: bool) -> None:
    # The supervisor may have ended by now, by itself or because of the first signal.
    with contextlib.suppress(NotRunningError):
        client.shutdown(force=force)


def _gone(launched: LaunchedDeployment) -> int:
    from llmlaunch.cli.deploy.leftovers import wait_until_gone
    from llmlaunch.paths import DeploymentPaths

    # An orderly end removes the socket; a supervisor that died left it behind.
    died = DeploymentPaths(launched.plan.deployment).socket.exists()
    wait_until_gone(launched.client)
    if died:
        raise StartError(
            "the supervisor died, and everything with it", hint=launch_messages.supervisor_log_hint(launched)
        )
    launched.shown.say(f"{launched.plan.deployment} was taken down by another command")
    return 0


def _names_ready(launched: LaunchedDeployment, over: Callable[[], bool]) -> None:
    """Wait until the endpoint lists every name, or waiting makes no sense any more. Raises DeadlineError."""
    from llmlaunch.cli.talk.endpoint import names_ready

    url = launched.client.status().api.url
    ends = time.monotonic() + NAMES_DEADLINE_S
    deadline = ends if launched.deadline is None else min(ends, launched.deadline)
    seen = (0, len(launched.plan.served_names))

    def listed() -> bool:
        nonlocal seen
        seen = names_ready(url) or seen
        return seen[0] >= seen[1]

    while not over() and not listed():
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"every replica is ready, but the endpoint lists {seen[0]} of {seen[1]} names"
            )
        launched.session.step(0.05)
