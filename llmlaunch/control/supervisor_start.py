"""Start a deployment's supervisor, unless it runs already."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.common.terminal_text import one_line
from llmlaunch.control.client import ControlClient
from llmlaunch.control.types import ALREADY_RUNNING_EXIT
from llmlaunch.errors import ControlError, NotRunningError

_START_S = 20.0
_LAST_WORDS_BYTES = 64 << 10


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
            f"cannot keep state and logs in {where.state}: {error.strerror}",
            hint="set LLMLAUNCH_HOME to a folder you can write to",
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
            client = ControlClient.connect_now(name)
            ours = code is None and client.supervisor_pid in (process.pid, 0)
            if ours:
                # It outlives this object on purpose: a returncode keeps Popen from warning about that.
                process.returncode = 0
            else:
                # Another one was first: this one ends as soon as it finds the lock taken.
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
    except (OSError, files.UnusableFileError):
        return ""
    said = [one_line(line) for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else ""
