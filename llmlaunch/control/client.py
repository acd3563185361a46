"""The client of a deployment's supervisor. Standard library only: ``llmlaunch status`` answers in milliseconds."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from llmlaunch import __version__, paths
from llmlaunch.common.process_identity import identify
from llmlaunch.control import codec, supervisor_process
from llmlaunch.control.connection import (
    ANSWER_S,
    NotAnsweringError,
    UnixConnection,
    not_answering,
    open_socket,
    peer,
)
from llmlaunch.control.types import About, ApplyResult, Deployed, ProgressEvent, StatusReport
from llmlaunch.errors import ControlError, NotRunningError, PlanError
from llmlaunch.planning.types import Plan, ProcessSpec

_REBIND_S = 3.0
"""How long a supervisor may take to notice that its socket is gone, and to bind another."""


class ControlClient:
    """One deployment's supervisor. Every call opens a connection of its own, so a client may be kept for long.

    All methods raise NotRunningError when the supervisor is gone, and ControlError when it refuses or does not answer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.supervisor_pid = 0

    @classmethod
    def connect(cls, name: str) -> ControlClient:
        """A client of the running deployment ``name``.

        Raises NotRunningError; ForeignError, which is one, for another user's; UnreachableError for one that lives and lost its
        socket for good.
        """
        end = time.monotonic() + _REBIND_S
        while True:
            try:
                return cls.connect_now(name)
            except supervisor_process.ForeignError:
                raise
            except NotRunningError:
                pass
            # Its supervisor may be about to end, or about to make a socket anew that somebody removed.
            supervisor = supervisor_process.supervisor_of(name)
            if supervisor is None:
                break
            if time.monotonic() >= end:
                raise supervisor_process.UnreachableError(
                    f"deployment {name!r} runs under supervisor {supervisor.pid}, but its control socket is missing: "
                    f"{paths.DeploymentPaths(name).socket}",
                    pid=supervisor.pid,
                    hint=f"see {paths.DeploymentPaths(name).supervisor_log}; `llmlaunch down --name {name}` still works",
                )
            time.sleep(0.05)
        with contextlib.suppress(NotRunningError):
            return cls.connect_now(name)  # another one in its place, started meanwhile
        raise supervisor_process.not_running_error(name)

    @classmethod
    def connect_now(cls, name: str) -> ControlClient:
        """As :meth:`connect`, without waiting for a socket that is being replaced."""
        client = cls(name)
        with open_socket(name, 0) as sock:
            client.supervisor_pid = peer(sock)[0]
        return client

    def about(self, timeout_s: float = ANSWER_S) -> About:
        """Which deployment it runs. Also answered, with less, by supervisors that are too old to know the question."""
        try:
            return codec.about_from_json(self._call("GET", "/about", timeout_s=timeout_s))
        except ControlError as error:
            if error.code != "no_route":
                raise
        old = codec.status_from_json(self._call("GET", "/status", timeout_s=timeout_s))
        return About(old.deployment, old.manifest, "")

    def status_json(self) -> dict[str, Any]:
        """What ``llmlaunch status --json`` prints."""
        return dict(self._call("GET", "/status"))

    def status(self) -> StatusReport:
        """What runs, and how it is."""
        return codec.status_from_json(self.status_json())

    def specs(self) -> tuple[ProcessSpec, ...]:
        """What the supervisor was last told to run, environments and their secrets included."""
        return self.deployed().specs

    def deployed(self) -> Deployed:
        """What the supervisor was last told to run, and what has become of it.

        Raises ControlError (code ``version``) when it is of a version that tells so in other words.
        """
        from llmlaunch.planning.codec import spec_from_json

        answer = self._call("GET", "/specs")
        try:
            return Deployed(tuple(map(spec_from_json, answer["processes"])), dict(answer.get("phases", {})))
        except PlanError as error:
            raise self._other_version(error.message) from None

    def apply(
        self, plan: Plan, restart_down: bool = True, environment: Mapping[str, str] | None = None
    ) -> ApplyResult:
        """Bring the deployment to ``plan``. Returns at once; :meth:`events` says what happens.

        ``restart_down``: components that are stopped or failed start again. ``environment`` is inherited by what starts because
        of this plan; without it, by the supervisor's own. It holds secrets, and travels on the private socket alone.
        """
        from llmlaunch.planning.codec import plan_to_json

        body = {"plan": plan_to_json(plan), "restart_down": restart_down}
        if environment is not None:
            body["environment"] = dict(environment)
        try:
            return codec.apply_result_from_json(self._call("POST", "/apply", body))
        except ControlError as error:
            if error.code != PlanError.code:
                raise
            raise self._other_version(error.message) from None

    def _other_version(self, detail: str) -> ControlError:
        theirs = self.about().version
        if theirs == __version__:
            words = f"is a different build of version {theirs}"
        else:
            words = f"is {f'version {theirs}' if theirs else 'an older version'}, this is {__version__}"
        return ControlError(
            f"the running supervisor of {self.name!r} {words}; the two are not compatible ({detail})",
            hint=f"run `llmlaunch down --name {self.name}`, then `llmlaunch up` again",
            code="version",
        )

    def command(self, verb: str, names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
        """``stop``, ``start`` or ``restart`` the named components; returns those that it applies to."""
        return tuple(self._call("POST", "/command", {"verb": verb, "names": list(names)})["names"])

    def shutdown(self, force: bool = False) -> None:
        """Take everything down, then the supervisor. Returns at once; see :meth:`wait_gone`.

        ``force``: no draining and no grace, every process tree is killed.
        """
        self._call("POST", "/shutdown", {"force": force})

    def events(self, since: int = 0, timeout_s: float | None = None) -> Iterator[ProgressEvent]:
        """Changes after number ``since``, the past ones first, then live until the supervisor ends or ``timeout_s`` is over."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        connection = UnixConnection(self.name, self.supervisor_pid)
        try:
            response = self._request(connection, "GET", f"/events?since={since}", None)
            pending = b""
            while True:
                if connection.sock is not None:
                    connection.sock.settimeout(None if end is None else max(end - time.monotonic(), 0.001))
                chunk = response.read1(65536)
                if not chunk:
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                yield from (codec.event_from_json(json.loads(line)) for line in lines if line)
                if end is not None and time.monotonic() >= end:
                    return
        except (TimeoutError, ConnectionError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def wait_gone(self, timeout_s: float) -> bool:
        """True once the supervisor has ended, with all its processes; False when ``timeout_s`` is over before."""
        end = time.monotonic() + timeout_s
        while self._alive():
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return True

    def _alive(self) -> bool:
        try:
            open_socket(self.name, self.supervisor_pid).close()
        except NotRunningError:
            # Its socket goes first and its process last; both must be gone before a new one can start.
            return self.supervisor_pid > 0 and identify(self.supervisor_pid) is not None
        except NotAnsweringError:
            return True
        return True

    def _request(
        self, connection: UnixConnection, method: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        connection.request(method, path, data, headers)
        connection.await_answer()
        response = connection.getresponse()
        if response.status >= 400:
            raise _refusal(response.status, response.read())
        return response

    def _call(self, method: str, path: str, body: Any = None, timeout_s: float = ANSWER_S) -> Any:
        connection = UnixConnection(self.name, self.supervisor_pid, timeout_s)
        try:
            return json.loads(self._request(connection, method, path, body).read())
        except TimeoutError:
            raise not_answering(
                self.name, self.supervisor_pid, f"did not answer within {timeout_s:g} s"
            ) from None
        except (ConnectionError, http.client.HTTPException):
            raise NotRunningError(f"the supervisor of {self.name!r} exited before it answered") from None
        except ValueError:
            raise ControlError(f"the supervisor of {self.name!r} sent a response that is not JSON") from None
        finally:
            connection.close()


def _refusal(status: int, body: bytes) -> ControlError:
    try:
        error = json.loads(body)["error"]
        return ControlError(
            str(error["message"]), hint=str(error.get("hint", "")), code=str(error.get("code", ""))
        )
    except (ValueError, KeyError, TypeError):
        return ControlError(f"the supervisor answered with status {status}")
