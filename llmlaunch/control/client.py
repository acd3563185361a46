"""Talk to a deployment's supervisor, or start one. Standard library only: ``llmlaunch status`` answers in a blink.

The socket's folder is entered through ``/proc/self/fd``, because a unix socket's path may be 107 bytes long at most
(``man 7 unix``) and a home folder may be deeper than that.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmlaunch import __version__, paths
from llmlaunch.common import files
from llmlaunch.common.terminal_text import one_line
from llmlaunch.control import codec, supervisor_process, unresponsive
from llmlaunch.control.types import About, ApplyResult, Deployed, ProgressEvent, StatusReport
from llmlaunch.errors import ControlError, LlmlaunchError, NotRunningError, PlanError
from llmlaunch.planning.types import Plan, ProcessSpec

ALREADY_RUNNING_EXIT = 75
"""Exit code of a supervisor that found another one in charge of its deployment (EX_TEMPFAIL of sysexits.h)."""
_ANSWER_S = 15.0
_LOOK_S = 1.0
"""How often it is looked whether a supervisor that does not answer can answer at all."""
_NOT_OURS = (errno.EPROTOTYPE, errno.ENOTSOCK, errno.ELOOP)
_REBIND_S = 3.0
"""So long may a supervisor take to notice that its socket is gone, and to make another."""
_SOON_S = 2.0
_START_S = 20.0
_LAST_WORDS_BYTES = 64 << 10


class NotAnsweringError(ControlError):
    """The supervisor is there and does not answer: it is stopped, hangs, or has more to do than it can."""

    code = "not_answering"


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
                return cls._connect_now(name)
            except supervisor_process.ForeignError:
                raise
            except NotRunningError:
                pass
            # Its supervisor may be about to end, or about to make a socket anew that somebody removed.
            pid = supervisor_process.supervisor_of(name)
            if pid is None:
                break
            if time.monotonic() >= end:
                raise supervisor_process.UnreachableError(
                    f"deployment {name!r} runs under supervisor {pid}, whose control socket is gone from "
                    f"{paths.DeploymentPaths(name).socket}",
                    pid=pid,
                    hint=f"see {paths.DeploymentPaths(name).supervisor_log}; `llmlaunch down --name {name}` ends it all the same",
                )
            time.sleep(0.05)
        with contextlib.suppress(NotRunningError):
            return cls._connect_now(name)  # another one in its place, started meanwhile
        raise supervisor_process.not_running(name)

    @classmethod
    def _connect_now(cls, name: str) -> ControlClient:
        client = cls(name)
        with client._open() as sock:
            client.supervisor_pid = _peer(sock)[0]
        return client

    def about(self, timeout_s: float = _ANSWER_S) -> About:
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
        """Bring the deployment to ``plan``. Returns at once; watch :meth:`events` for what becomes of it.

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
            words = f"is not the same build of version {theirs} as this llmlaunch"
        else:
            words = f"is {f'version {theirs}' if theirs else 'an older version'}, this is {__version__}"
        return ControlError(
            f"the running supervisor of {self.name!r} {words}, and they do not understand each other ({detail})",
            hint=f"llmlaunch down --name {self.name} first, then up",
            code="version",
        )

    def command(self, verb: str, names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
        """``stop``, ``start`` or ``restart`` the named components; returns those it means something for."""
        return tuple(self._call("POST", "/command", {"verb": verb, "names": list(names)})["names"])

    def shutdown(self, force: bool = False) -> None:
        """Take everything down, then the supervisor. Returns at once; see :meth:`wait_gone`.

        ``force``: no draining and no grace, every process tree is killed.
        """
        self._call("POST", "/shutdown", {"force": force})

    def events(self, since: int = 0, timeout_s: float | None = None) -> Iterator[ProgressEvent]:
        """Changes after number ``since``, the past ones first, then live until the supervisor ends or ``timeout_s`` is over."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        connection = _UnixConnection(self)
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
            self._open().close()
        except NotRunningError:
            # Its socket goes first and its process last; both must be gone before a new one can start.
            return self.supervisor_pid > 0 and _process_alive(self.supervisor_pid)
        except NotAnsweringError:
            return True
        return True

    def _not_answering(self, why: str) -> NotAnsweringError:
        where = paths.DeploymentPaths(self.name)
        pid = f" (pid {self.supervisor_pid})" if self.supervisor_pid else ""
        return NotAnsweringError(
            f"the supervisor of {self.name!r}{pid} does not answer: it {unresponsive.tell(where, self.supervisor_pid) or why}",
            hint=f"what it runs goes on serving; see {where.supervisor_log}; "
            f"`llmlaunch down --name {self.name} --force` ends it with all its processes",
        )

    def _open(self, timeout_s: float = _ANSWER_S) -> socket.socket:
        where = paths.DeploymentPaths(self.name)
        paths.refuse_foreign(where.run)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(timeout_s)
        try:
            folder = os.open(where.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _believe(self.name, os.fstat(folder).st_uid)
                sock.connect(f"/proc/self/fd/{folder}/{where.socket.name}")
            finally:
                os.close(folder)
            # Whoever listens there is told every secret of the deployment.
            _believe(self.name, _peer(sock)[1])
        except PermissionError:
            sock.close()
            raise _kept_out(self.name, where.socket) from None
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            sock.close()
            raise NotRunningError(
                f"deployment {self.name!r} is not running", hint="start it with: llmlaunch up"
            ) from None
        except (BlockingIOError, TimeoutError):
            sock.close()
            raise self._not_answering("takes no more connections") from None
        except supervisor_process.ForeignError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            if error.errno in _NOT_OURS:
                raise NotRunningError(f"something else is in the place of {where.socket}") from None
            raise ControlError(
                f"can not reach the supervisor of {self.name!r} at {where.socket}: {error}"
            ) from None
        return sock

    def _request(
        self, connection: _UnixConnection, method: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        connection.request(method, path, data, headers)
        connection.await_answer()
        response = connection.getresponse()
        if response.status >= 400:
            raise _refusal(response.status, response.read())
        return response

    def _call(self, method: str, path: str, body: Any = None, timeout_s: float = _ANSWER_S) -> Any:
        connection = _UnixConnection(self, timeout_s)
        try:
            return json.loads(self._request(connection, method, path, body).read())
        except TimeoutError:
            raise self._not_answering(f"gave no answer in {timeout_s:g} s") from None
        except (ConnectionError, http.client.HTTPException):
            raise NotRunningError(f"the supervisor of {self.name!r} ended while it was asked") from None
        except ValueError:
            raise ControlError(f"the supervisor of {self.name!r} sent something that is not JSON") from None
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, client: ControlClient, timeout_s: float = _ANSWER_S) -> None:
        super().__init__("localhost")
        self._client = client
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = self._client._open(self._timeout_s)

    def await_answer(self) -> None:
        """Return when the answer begins. Raises NotAnsweringError as soon as it is known that none will come; else TimeoutError."""
        end = time.monotonic() + self._timeout_s
        where = paths.DeploymentPaths(self._client.name)
        while self.sock is not None and (left := end - time.monotonic()) > 0:
            if select.select([self.sock], [], [], min(left, _LOOK_S))[0]:
                return
            if unresponsive.tell(where, self._client.supervisor_pid):
                raise self._client._not_answering("")
        raise TimeoutError


def running_deployments() -> list[str]:
    """Names of this user's deployments that have a supervisor now, sorted."""
    names = []
    for name in paths.known_deployments():
        try:
            ControlClient._connect_now(name)
        except NotAnsweringError:
            pass
        except NotRunningError:
            if supervisor_process.supervisor_of(name) is None:
                continue
        except ControlError:
            continue
        names.append(name)
    return names


def manifest_of(name: str) -> str | None:
    """The file that the running deployment ``name`` was started from; None when it does not run, or does not say so at once."""
    try:
        return ControlClient.connect(name).about(_SOON_S).manifest
    except (NotRunningError, ControlError):
        return None


def ensure_supervisor(name: str, *, lifeline_fd: int | None = None) -> tuple[ControlClient, bool]:
    """The supervisor of ``name``, started if there is none; True: it was started here.

    ``lifeline_fd`` is the reading end of a pipe whose other end the caller holds: when that closes without a
    ``shutdown`` before, the new supervisor takes everything down in order. Raises ControlError when none can be started.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        with contextlib.suppress(NotRunningError):
            return ControlClient.connect(name), False
        if started := _start(name, lifeline_fd, end):
            return started
        # Another supervisor has the lock and no socket: it has just begun, or is about to end. Look again.
        time.sleep(0.05)
    raise ControlError(
        f"the supervisor of {name!r} did not answer within {_START_S:g} s",
        hint=f"see {paths.DeploymentPaths(name).supervisor_log}",
    )


def _start(name: str, lifeline_fd: int | None, end: float) -> tuple[ControlClient, bool] | None:
    """Start a supervisor and wait until one answers; None when the lock was taken and nobody does."""
    where = paths.DeploymentPaths(name)
    try:
        paths.private_dir(where.logs)
        log = files.open_kept(where.supervisor_log, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise ControlError(
            f"can not keep state and logs in {where.state}: {error.strerror}",
            hint="set LLMLAUNCH_HOME to a folder that you may write to",
        ) from None
    try:
        said_before = os.fstat(log).st_size
        process = subprocess.Popen(
            _daemon_argv(name, lifeline_fd),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=() if lifeline_fd is None else (lifeline_fd,),
        )
    finally:
        os.close(log)
    return _await_supervisor(name, process, said_before, end)


def _daemon_argv(name: str, lifeline_fd: int | None) -> list[str]:
    # -P: a json.py in the folder that `up` is called in must not become a part of the supervisor.
    argv = [sys.executable, "-P", "-m", "llmlaunch.supervision", "--name", name]
    return argv if lifeline_fd is None else [*argv, "--lifeline-fd", str(lifeline_fd)]


def _await_supervisor(
    name: str, process: subprocess.Popen[bytes], said_before: int, end: float
) -> tuple[ControlClient, bool] | None:
    while time.monotonic() < end:
        code = process.poll()
        with contextlib.suppress(NotRunningError):
            client = ControlClient._connect_now(name)
            ours = code is None and client.supervisor_pid in (process.pid, 0)
            if ours:
                # It outlives this object on purpose: a returncode keeps Popen from warning about that.
                process.returncode = 0
            else:
                # Another one won, so this one ends as soon as it finds the lock taken.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_START_S)
            return client, ours
        if code == ALREADY_RUNNING_EXIT:
            return None
        if code is not None:
            raise ControlError(
                f"the supervisor of {name!r} did not start: {_last_words(name, said_before) or f'exit code {code}'}",
                hint=f"see {paths.DeploymentPaths(name).supervisor_log}",
            )
        time.sleep(0.01)
    process.kill()
    process.wait()
    return None


def _last_words(name: str, offset: int) -> str:
    try:
        with os.fdopen(files.open_ours(paths.DeploymentPaths(name).supervisor_log), "rb") as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(max(offset if offset <= size else 0, size - _LAST_WORDS_BYTES))
            lines = log.read(_LAST_WORDS_BYTES).decode(errors="replace").split("\n")
    except (OSError, files.Unfit):
        return ""
    said = [one_line(line) for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else ""


def _refusal(status: int, body: bytes) -> ControlError:
    try:
        error = json.loads(body)["error"]
        return ControlError(
            str(error["message"]), hint=str(error.get("hint", "")), code=str(error.get("code", ""))
        )
    except (ValueError, KeyError, TypeError):
        return ControlError(f"the supervisor answered {status}")


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and user of the process that listens; pid 0 when it lives in a pid namespace that cannot be seen from here."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid), int(uid)


def _believe(name: str, uid: int) -> None:
    """Raise ForeignError unless what belongs to ``uid`` may speak for the deployment ``name`` of this user."""
    if not files.trusted(uid):
        raise supervisor_process.foreign(name, uid)


def _kept_out(name: str, path: Path) -> LlmlaunchError:
    """The error for a socket that may not be reached: the nearest folder that can be looked at says whose it is."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            owner = place.stat().st_uid
            if owner != os.geteuid():
                return supervisor_process.foreign(name, owner)
            break
    return ControlError(f"cannot reach the supervisor of {name!r} at {path}: permission denied")


def _process_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
