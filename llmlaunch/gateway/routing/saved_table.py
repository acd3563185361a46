"""The last route table on disk, which a gateway uses from its start until its controller answers.

A controller that hangs or is away must not keep a new gateway from serving. The file is used if it belongs to this user
(``files``) and comes from the same run of the same deployment with the same controller: each run of a supervisor has an
id of its own, and in another run an old address may belong to someone else. Otherwise it is ignored. The file holds
addresses and names of models, and no secret.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlaunch.common import files, variables
from llmlaunch.common.deployment_name import is_deployment_name
from llmlaunch.gateway.routing import route_table
from llmlaunch.gateway.routing.route_table import RouteTable
from llmlaunch.paths import DeploymentPaths

log = logging.getLogger(__name__)

AGE_MOST_S = 600.0
"""Seconds after which a saved table is not used any more."""
REWRITE_S = 60.0
"""Seconds after which an unchanged table is saved again, so that its age tells for how long no gateway has run."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class TableOrigin:
    """Where a table comes from. One of another origin is not used."""

    deployment: str
    run: str
    """The id of the supervisor's run: a new one each time that the deployment starts."""
    controller: str
    """Its address."""


def of_deployment(env: Mapping[str, str], controller: str) -> SavedTable | None:
    """The saved table of a gateway that a supervisor has started, by its environment; None if it was started by hand."""
    name, run = env.get(variables.DEPLOYMENT, ""), env.get(variables.RUN, "")
    if not run or not is_deployment_name(name):
        return None
    return SavedTable(DeploymentPaths(name).routes_file, TableOrigin(name, run, controller))


class SavedTable:
    """One file. Nothing here raises: without the file, a gateway just waits for its controller."""

    def __init__(self, path: Path, origin: TableOrigin) -> None:
        self._path = path
        self._origin = origin
        self._warned = False

    def load(self, processes: int) -> RouteTable | None:
        """The saved table; None if there is none that can be used. ``processes`` share each replica's max_concurrency."""
        try:
            data = json.loads(files.read(self._path))
            self._check(data)
            found, _ = route_table.parse(data["routes"], processes)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info("the saved routes (%s) are not used: %s", self._path, error or type(error).__name__)
            return None
        return route_table.merge(RouteTable(), found)

    def save(self, table: RouteTable, processes: int) -> None:
        """Save ``table`` atomically. An error is logged once."""
        data = {
            "version": _VERSION, "deployment": self._origin.deployment, "run": self._origin.run,
            "controller": self._origin.controller, "saved_at": time.time(), "routes": route_table.dump(table, processes),
        }  # fmt: skip
        try:
            files.write(self._path, json.dumps(data))
        except OSError as error:
            if not self._warned:
                log.warning("cannot save the routes: %s: %s", self._path, error.strerror)
            self._warned = True
        else:
            self._warned = False

    def _check(self, data: Any) -> None:
        """Raise ValueError if ``data`` has another version or origin, or is too old."""
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            raise ValueError("another version wrote them")
        if data.get("deployment") != self._origin.deployment or data.get("run") != self._origin.run:
            raise ValueError("they are from another run")
        if data.get("controller") != self._origin.controller:
            raise ValueError("they are from another controller")
        at = data.get("saved_at")
        if not isinstance(at, int | float) or isinstance(at, bool) or abs(time.time() - at) > AGE_MOST_S:
            raise ValueError("they are too old")
