"""What failed is tried again by itself, says when, and tells afterwards what had happened."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmlaunch import paths
from llmlaunch.cli.display.render import status_lines
from tests.integration.supervision.world import (
    ENGINE,
    QUICK,
    World,
    component,
    engine,
    post,
    until_phase,
    world,
)
from tests.support.waiting import wait_until

POLICY = QUICK | {"max_failures": 2, "first_retry_s": 0.3, "later_retry_s": 0.3}


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(POLICY))
    with world(home) as box:
        yield box


def test_a_port_that_a_stranger_gives_back_is_taken_by_itself(lab: World) -> None:
    with socket.socket() as holder:
        spec = engine("tiny")
        holder.bind(("127.0.0.1", spec.port))
        holder.listen()
        client = lab.up(spec)
        failed = until_phase(client, "tiny", "failed")
        assert f"port {spec.port} on 127.0.0.1 is taken by" in failed.cause
        assert failed.next_try is not None
    ready = until_phase(client, "tiny", "ready")
    assert ready.last is not None
    assert (ready.last.why, ready.last.exit_code, ready.last.signal) == ("port", None, None)
    assert ready.restarts >= 2


def test_a_start_that_fails_is_tried_again_until_its_reason_is_gone(lab: World) -> None:
    mended = lab.home / "mended"
    script = f"import os, sys; os.path.exists({str(mended)!r}) or sys.exit('no space left on device'); os.execv(sys.argv[1], sys.argv[1:])"
    spec = engine("tiny")
    client = lab.up(
        engine("tiny", port=spec.port, argv=(sys.executable, "-I", "-S", "-c", script, *spec.argv))
    )
    failed = until_phase(client, "tiny", "failed")
    assert (
        "failed starts in a row; the last one: exited with code 1 while starting: no space left on device"
        in failed.cause
    )
    mended.touch()
    ready = until_phase(client, "tiny", "ready")
    assert ready.cause == ""
    assert ready.last is not None
    assert (ready.last.exit_code, ready.last.last_line) == (1, "no space left on device")


def test_a_program_that_is_not_there_stays_down_until_somebody_says_it_is(lab: World) -> None:
    program = lab.home / "engine"
    spec = engine("tiny")
    client = lab.up(engine("tiny", port=spec.port, argv=(str(program), *spec.argv[4:])))
    failed = until_phase(client, "tiny", "failed")
    assert failed.cause.startswith(f"the program '{program}' was not found")
    assert (failed.next_try, failed.restarts) == (None, 0)
    assert "`llmlaunch restart tiny` tries again" in "\n".join(status_lines(client.status(), failed.since))
    program.write_text(f"#!{sys.executable}\n{ENGINE.read_text()}")
    program.chmod(0o700)
    client.command("restart", ["tiny"])
    until_phase(client, "tiny", "ready")


def test_a_supervisor_without_descriptors_tries_until_it_has_some(lab: World) -> None:
    client = lab.up(engine("tiny"))
    pid = until_phase(client, "tiny", "ready").pid or 0
    supervisor = psutil.Process(client.supervisor_pid)
    soft, hard = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        os.kill(pid, signal.SIGKILL)
        log = paths.DeploymentPaths("lab").supervisor_log
        wait_until(lambda: "→ failed" in log.read_text(), 10, "nothing can be started")
    finally:
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (soft, hard))
    again = until_phase(client, "tiny", "ready")
    assert again.last is not None
    assert "Too many open files" in again.last.text


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A cgroup of 400 MB, where one can be made."""
    root = Path("/sys/fs/cgroup")
    root = root / "memory" if (root / "memory").is_dir() else root
    group = root / f"llmlaunch-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = "memory.limit_in_bytes" if root.name == "memory" else "memory.max"
        (group / limit).write_text("400000000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), 10)
    group.rmdir()


def test_a_worker_that_the_kernel_killed_for_lack_of_memory_is_told_as_such(
    small_memory: Path, lab: World
) -> None:
    client = lab.supervisor()
    (small_memory / "cgroup.procs").write_text(str(client.supervisor_pid))
    tiny = engine("tiny")
    lab.up(tiny)
    until_phase(client, "tiny", "ready")
    post(tiny, "/eat")
    wait_until(lambda: component(client, "tiny").incarnation == 2, 20)
    last = until_phase(client, "tiny", "ready").last
    assert last is not None
    assert (last.signal, last.out_of_memory) == ("SIGKILL", True)
    assert "was killed by SIGKILL; the kernel's OOM killer was at work at the time" in last.text


def test_status_tells_what_happened_last(lab: World) -> None:
    client = lab.up(engine("tiny"))
    pid = until_phase(client, "tiny", "ready").pid or 0
    assert component(client, "tiny").last is None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: component(client, "tiny").incarnation == 2, 10)
    ready = until_phase(client, "tiny", "ready")
    assert ready.last is not None
    assert (ready.last.signal, ready.last.exit_code, ready.last.out_of_memory) == ("SIGKILL", None, False)
    assert (ready.last.incarnation, ready.last.why) == (1, "exit")
    assert ready.last.last_line.startswith("fake engine, pid")
    assert "s ago: was killed by SIGKILL; its last line: fake engine" in "\n".join(
        status_lines(client.status(), ready.last.at + 5)
    )
    client.command("restart", ["tiny"])
    wait_until(lambda: component(client, "tiny").incarnation == 3, 10)
    assert until_phase(client, "tiny", "ready").last == ready.last
