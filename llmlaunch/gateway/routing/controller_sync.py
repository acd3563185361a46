"""Keeps in step with the controller: fetches its route table by long poll, and reports the requests in flight.

No client's request waits for this. While the controller is gone the table stays as it is; if it does not answer at the
start, the last table on disk is used (``saved_table``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from typing import Any
from urllib.parse import quote, urlsplit

from llmlaunch.common import backoff, http_client
from llmlaunch.common.heartbeat import REPORT_AGAIN_S
from llmlaunch.errors import UsageError
from llmlaunch.gateway.routing import route_table
from llmlaunch.gateway.routing.route_table import RouteTable
from llmlaunch.gateway.routing.router import Router
from llmlaunch.gateway.routing.saved_table import REWRITE_S, SavedTable

log = logging.getLogger(__name__)

WAIT_S = 30.0
"""Seconds for which the controller holds a long poll."""
ANSWER_S = 5.0
"""Seconds to wait for any other answer, and beyond WAIT_S for a long poll's."""
ANSWER_LIMIT = 64 << 20
"""Bytes of an answer at most."""
RETRY_FIRST_S, RETRY_MOST_S = 0.2, 2.0
"""Seconds between two failed polls: the first and the longest pause."""
RETRY_EARLY_S = 0.25
"""The longest pause until the first table has come: requests may be waiting for it."""
SAVE_CHECK_S = 0.5
"""Seconds between two checks whether there is a table to save."""
REPORT_S = 1.0
"""Seconds between two checks whether there are counts to report."""
POLL_AT_LEAST_S = 0.2
"""Seconds between two polls without a change, if the controller does not hold them."""


class ControllerStatusError(Exception):
    """The controller answered with a status other than 200."""


def controller_address(url: str) -> tuple[str, int]:
    """Host and port of ``http://host:port``. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme != "http" or parts.path not in ("", "/") or parts.query:
        raise UsageError(
            f"--controller-address {url!r} is not of the form http://host:port",
            hint="write it like http://127.0.0.1:21001",
        )
    return host, port or 80


class ControllerSync:
    """Keeps the router's table fresh. :meth:`run` never ends by itself."""

    def __init__(
        self, router: Router, identity: str, url: str, token: str, saved: SavedTable | None = None
    ) -> None:
        """``identity`` names this process to the controller at ``url``. ``saved``: where its table is kept on disk."""
        self._saved = saved
        self._router = router
        self._identity = identity
        self._url = url
        self._host, self._port = controller_address(url)
        self._token = token
        self._logged = ""
        self._report_asked = asyncio.Event()

    def report_now(self) -> None:
        """Report the requests in flight at once, because the controller waits for them."""
        self._report_asked.set()

    async def run(self) -> None:
        """Poll, report and save until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._report())
            if self._saved is not None:
                group.create_task(self._save_changes(self._saved))

    async def _save_changes(self, saved: SavedTable) -> None:
        """Save the controller's table when it changes, and every REWRITE_S while it does not."""
        written, saved_at = RouteTable(), 0.0
        while True:
            table, now = self._router.table, time.monotonic()
            due = table is not written or now - saved_at > REWRITE_S
            if due and self._router.controller_answered:
                written, saved_at = table, now
                # In a thread: a disk that hangs must block this task only.
                await asyncio.to_thread(saved.save, table, self._router.processes)
            await asyncio.sleep(SAVE_CHECK_S)

    async def _follow(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                changed = await self._routes(
                    wait_s=0.0 if failures or not self._router.controller_answered else WAIT_S
                )
            except (http_client.HttpError, ValueError, ControllerStatusError) as error:
                failures += 1
                self._log_change(
                    f"the controller at {self._url} cannot be used: {error or type(error).__name__}"
                )
                self._router.controller_up = False
                most = RETRY_MOST_S if self._router.controller_answered else RETRY_EARLY_S
                pause = backoff.delay(failures, RETRY_FIRST_S, most)
                await asyncio.sleep(backoff.equal_jitter(pause, random.random()))
                continue
            first, failures = failures > 0 or not self._logged, 0
            self._log_change("")
            if first:
                log.info("following the controller at %s", self._url)
            if not changed and time.monotonic() - began < POLL_AT_LEAST_S:
                await asyncio.sleep(POLL_AT_LEAST_S)

    async def _routes(self, wait_s: float) -> bool:
        """Poll once; return whether the table changed. Without a wait it is always true."""
        table = self._router.table
        path = f"/routes?since={table.rev}&epoch={quote(table.epoch)}&wait={wait_s:g}"
        new, problems = route_table.parse(
            await self._call("GET", path, None, wait_s + ANSWER_S), self._router.processes
        )
        for problem in problems:
            log.warning("%s", problem)
        self._router.controller_up = True
        changed = (new.epoch, new.rev, new.settled) != (table.epoch, table.rev, table.settled)
        if changed or not self._router.controller_answered:
            self._router.adopt(route_table.merge(table, new))
        return changed or wait_s == 0

    async def _report(self) -> None:
        sent: dict[str, int] = {}
        sent_at = 0.0
        while True:
            try:
                await asyncio.wait_for(self._report_asked.wait(), REPORT_S)
            except TimeoutError:
                pass
            asked = self._report_asked.is_set()
            self._report_asked.clear()
            counts = self._router.in_flight()
            now = time.monotonic()
            if not asked and counts == sent and not (counts and now - sent_at > REPORT_AGAIN_S):
                continue
            try:
                report = {"gateway": self._identity, "in_flight": counts}
                await self._call("POST", "/gateway_report", report, ANSWER_S)
            except (http_client.HttpError, ControllerStatusError) as error:
                log.debug("report not delivered: %s", error)
            else:
                sent, sent_at = counts, now

    async def _call(self, method: str, path: str, body: object, timeout_s: float) -> Any:
        answer = await http_client.ask(
            self._host,
            self._port,
            method,
            path,
            timeout_s=timeout_s,
            body_limit=ANSWER_LIMIT,
            content=b"" if body is None else json.dumps(body).encode(),
            token=self._token,
        )
        value = answer.json()
        if answer.status == 200:
            return value
        detail = value.get("error") if isinstance(value, dict) else None
        reason = detail.get("message") if isinstance(detail, dict) else ""
        raise ControllerStatusError(
            f"it refused {path.partition('?')[0]} with status {answer.status}{f': {reason}' * bool(reason)}"
        )

    def _log_change(self, trouble: str) -> None:
        """Log ``trouble`` once until it changes, so that a controller that is away for an hour makes one line."""
        if trouble and trouble != self._logged:
            log.warning("%s; serving continues with the routes known so far", trouble)
        self._logged = trouble or "well"
