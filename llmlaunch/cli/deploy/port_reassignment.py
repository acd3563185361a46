"""Another program takes a port after it was planned: choose another port, and say so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from llmlaunch.errors import LlmlaunchError

if TYPE_CHECKING:
    from llmlaunch.cli.deploy.launched import LaunchedDeployment
    from llmlaunch.control.types import ComponentStatus
    from llmlaunch.planning.types import Plan


def expected_incarnations(anew: Iterable[str], before: Mapping[str, ComponentStatus]) -> dict[str, int]:
    """For each component in ``anew``, which is started again: the lowest incarnation that counts. The one before has ended or soon will."""
    return {name: before[name].incarnation + 1 for name in anew if name in before}


def reassign_ports(launched: LaunchedDeployment) -> LaunchedDeployment | None:
    """The deployment with new ports where another program took the planned ones; None when nothing can be moved.

    Ports that the manifest sets stay: the supervisor tries again, and gives up naming the program that holds the port.
    """
    from llmlaunch.assemble import replan
    from llmlaunch.cli.deploy.gateway_files import check_gateway_files
    from llmlaunch.control.planning_lock import planning_lock

    client, progress = launched.client, launched.session.progress
    try:
        with planning_lock(lambda: None):
            deployed = client.deployed()
            if deployed.specs != launched.plan.processes:
                return None  # somebody else has changed it since
            _, plan = replan(launched.manifest, deployed=deployed, check=check_gateway_files)
            moved = _moved(launched.plan, plan, progress.port_taken())
            if not moved or plan.rejections:
                return None
            before = {c.name: c for c in client.status().components}
            result = client.apply(plan, restart_down=False, environment=os.environ)
    except LlmlaunchError:
        return None  # the supervisor reports what happens
    for line in moved:
        launched.shown.say(line)
    progress.wanted |= expected_incarnations((*result.restarted, *result.started), before)
    progress.seed(client.status())
    return replace(launched, plan=plan)


def _moved(before: Plan, after: Plan, names: list[str]) -> list[str]:
    old = {spec.name: spec.port for spec in before.processes}
    new = {spec.name: spec.port for spec in after.processes}
    return [
        f"{name}: port {old[name]} has been taken in the meantime; moving to port {new[name]}"
        for name in names
        if name in old and new.get(name, old[name]) != old[name]
    ]
