"""A component's life with real processes: start, restart, give up, stop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import psutil

from llmlaunch.control.types import ComponentStatus
from tests.integration.supervision.world import (
    World,
    component,
    engine,
    get,
    past_events,
    post,
    until_dead,
    until_phase,
)
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def test_starts_probes_and_goes_down_cleanly(lab: World) -> None:
    spec = engine("tiny", "--ready-after", "0.3", "--progress")
    client = lab.up(spec)
    ready = until_phase(client, "tiny", "ready")
    assert (ready.address, ready.restarts, ready.cause, ready.incarnation) == (spec.address, 0, "", 1)
    assert get(spec, "/seen")["pid"] == ready.pid
    client.shutdown()
    assert client.wait_gone(10)
    assert not lab.processes()


def test_how_it_runs_is_told_where_that_may_surprise(lab: World) -> None:
    client = lab.up(engine("tiny", "--warning", "requests run one at a time"))
    assert until_phase(client, "tiny", "ready").note == "requests run one at a time"


def test_killed_worker_comes_back(lab: World) -> None:
    client = lab.up(engine("tiny"))
    first = until_phase(client, "tiny", "ready")
    os.kill(first.pid or 0, signal.SIGKILL)
    wait_until(lambda: component(client, "tiny").incarnation == 2, 10)
    again = until_phase(client, "tiny", "ready")
    assert again.pid != first.pid
    assert again.restarts == 1


def test_crash_loop_fails_with_the_last_log_line(lab: World) -> None:
    client = lab.up(engine("bad", "--fail-start", "--exit-code", "3"))
    failed = until_phase(client, "bad", "failed")
    assert "3 failed starts in a row" in failed.cause
    assert "exited with code 3 while starting: RuntimeError: this engine was told to fail" in failed.cause
    assert failed.restarts == 2
    events = [e for e in past_events(client) if e.component.phase == "failed"]
    assert events[-1].log_tail[-1] == "RuntimeError: this engine was told to fail"
    client.command("restart", ["bad"])
    wait_until(lambda: component(client, "bad").incarnation > 3, 10, "a restart tries again")


def test_a_usage_error_is_not_retried(lab: World) -> None:
    spec = engine("wrong", "--fail-start", "--exit-code", "2", engine="vllm")
    failed = until_phase(lab.up(spec), "wrong", "failed")
    assert (failed.restarts, failed.incarnation) == (0, 1)
    assert "exited with code 2" in failed.cause


def test_a_program_that_does_not_exist_is_named(lab: World) -> None:
    client = lab.up(engine("ghost", argv=("no-such-program", "--flag")))
    assert "'no-such-program' was not found" in until_phase(client, "ghost", "failed").cause


def test_a_hung_worker_is_restarted(lab: World) -> None:
    spec = engine("tiny")
    client = lab.up(spec)
    first = until_phase(client, "tiny", "ready")
    post(spec, "/hang")
    again = wait_for_incarnation(client, 2)
    assert again.pid != first.pid
    until_dead(first.pid or 0)
    lives = [e.component for e in past_events(client)]
    causes = [life.cause for life in lives if (life.phase, life.incarnation) == ("stopping", 1)]
    assert causes == [
        "unhealthy: 3 probes of /health in a row failed (no answer within 0.4 s; raise `probe_timeout:` to allow more)"
    ]


def test_a_suspended_worker_is_restarted(lab: World) -> None:
    client = lab.up(engine("tiny"))
    first = until_phase(client, "tiny", "ready")
    os.kill(first.pid or 0, signal.SIGSTOP)
    wait_for_incarnation(client, 2)
    until_dead(first.pid or 0)


def wait_for_incarnation(client: object, number: int) -> ComponentStatus:
    from llmlaunch.control.client import ControlClient

    assert isinstance(client, ControlClient)
    wait_until(lambda: component(client, "tiny").incarnation >= number, 15)
    return until_phase(client, "tiny", "ready")


def test_a_worker_that_ignores_sigterm_is_killed_after_the_grace(lab: World) -> None:
    client = lab.up(engine("deaf", "--ignore-term", stop_grace_s=0.4))
    pid = until_phase(client, "deaf", "ready").pid or 0
    client.command("stop", ["deaf"])
    assert until_phase(client, "deaf", "stopped").cause == "stopped by command"
    until_dead(pid)
    client.command("start", ["deaf"])
    until_phase(client, "deaf", "ready")


def test_shared_memory_of_a_tree_that_is_killed_is_removed(lab: World, tmp_path: Path) -> None:
    """Python's resource tracker does that when all others are gone; killed with them, it would leave it until the next boot."""
    names = tmp_path / "names"
    with_shared_memory = """if True:
        import os, signal, sys, time
        from multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory(create=True, size=1)
        with open(sys.argv[1], "a") as names:
            print(memory.name, file=names)
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        os.execv(sys.argv[2], sys.argv[2:])
    """
    spec = engine("tiny", "--ignore-term", stop_grace_s=0.1)
    spec = replace(spec, argv=(sys.executable, "-I", "-S", "-c", with_shared_memory, str(names), *spec.argv))
    client = lab.up(spec)
    os.kill(until_phase(client, "tiny", "ready").pid or 0, signal.SIGKILL)
    wait_until(lambda: component(client, "tiny").restarts == 1, 10, "a restart")
    until_phase(client, "tiny", "ready")
    client.shutdown()
    assert client.wait_gone(10)
    assert not lab.processes()
    segments = [Path("/dev/shm", name) for name in names.read_text().split()]
    assert len(segments) == 2
    assert not [segment for segment in segments if segment.exists()]


def test_a_stop_takes_grandchildren_in_their_own_session(lab: World) -> None:
    client = lab.up(engine("parent", "--spawn-grandchild", "--own-session", stop_grace_s=0.3))
    until_phase(client, "parent", "ready")
    wait_until(lambda: len(lab.processes("parent")) == 3, 5, "shim, engine and grandchild")
    client.command("stop", ["parent"])
    until_phase(client, "parent", "stopped")
    assert not lab.processes("parent")


def test_the_holder_of_a_taken_port_is_named(lab: World) -> None:
    with socket.socket() as holder:
        spec = engine("tiny")
        holder.bind(("127.0.0.1", spec.port))
        holder.listen()
        client = lab.up(spec)
        failed = until_phase(client, "tiny", "failed", 20)
        assert f"port {spec.port} on 127.0.0.1 is taken by" in failed.cause
        assert f"(pid {os.getpid()})" in failed.cause
    client.command("start", ["tiny"])
    until_phase(client, "tiny", "ready")


def test_a_silent_start_ends_at_its_deadline(lab: World) -> None:
    client = lab.up(engine("slow", "--ready-after", "30", start_timeout_s=0.4))
    assert "no progress for 0.4 s" in until_phase(client, "slow", "failed", 20).cause


def test_progress_in_the_probe_extends_the_deadline(lab: World) -> None:
    client = lab.up(engine("slow", "--ready-after", "4", "--progress", start_timeout_s=2.5))
    until_phase(client, "slow", "ready")
    assert component(client, "slow").restarts == 0
    shown = [e.component.progress for e in past_events(client) if e.component.progress]
    assert len(shown) > 2
    assert shown[0].startswith("loading ")


def test_progress_in_the_log_extends_the_deadline(lab: World) -> None:
    spec = engine(
        "slow", "--ready-after", "4", "--log-progress", progress_patterns=(r"shard \d+",), start_timeout_s=2.5
    )
    client = lab.up(spec)
    until_phase(client, "slow", "ready")
    assert component(client, "slow").restarts == 0


def test_reading_extends_the_deadline_of_a_start_that_says_nothing(lab: World) -> None:
    client = lab.up(engine("slow", "--ready-after", "3", "--read-files", start_timeout_s=1.5))
    until_phase(client, "slow", "ready")
    assert component(client, "slow").restarts == 0
    assert any(
        event.component.progress.endswith("MiB read and written so far") for event in past_events(client)
    )


def test_a_download_extends_the_deadline_whoever_writes_it(lab: World, tmp_path: Path) -> None:
    """As when the engine runs in a container, whose processes are no children of what was started."""
    blobs = tmp_path / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    env = {"HF_HUB_CACHE": str(tmp_path)}
    spec = engine("slow", "--ready-after", "2.5", start_timeout_s=1.5, model="org/tiny:Q4_K_M", env=env)
    client = lab.up(spec)
    with (blobs / "x.incomplete").open("wb") as file:

        def ready() -> bool:
            file.write(b"x" * (2 << 20))
            file.flush()
            return component(client, "slow").phase == "ready"

        wait_until(ready, 20, every_s=0.2)
    assert component(client, "slow").restarts == 0


def test_the_environment_of_a_component(lab: World) -> None:
    spec = engine("tiny", env={"CUDA_VISIBLE_DEVICES": "", "MARK": "x y"}, self_registering=True)
    client = lab.up(spec)
    until_phase(client, "tiny", "ready")
    env = get(spec, "/seen")["env"]
    assert (env["CUDA_VISIBLE_DEVICES"], env["MARK"]) == ("", "x y")
    assert (env["LLMLAUNCH_DEPLOYMENT"], env["LLMLAUNCH_COMPONENT"], env["LLMLAUNCH_INCARNATION"]) == (
        "lab",
        "tiny",
        "1",
    )
    assert len(env["LLMLAUNCH_TOKEN"]) > 30
    where = lab.home / "state" / "lab"
    assert (where / "logs" / "tiny.000001.log").stat().st_mode & 0o777 == 0o600
    for file in where.rglob("*"):
        assert not file.is_file() or env["LLMLAUNCH_TOKEN"] not in file.read_text()
    assert env["LLMLAUNCH_TOKEN"] not in str(client.status_json())


def test_our_own_components_need_no_folder_and_import_nothing_from_it(lab: World) -> None:
    folder = lab.home / "manifest"
    folder.mkdir()
    (folder / "json.py").write_text("raise RuntimeError('imported from beside the manifest')")
    port = free_port()
    argv = (sys.executable, "-m", "llmlaunch", "controller", "--port", str(port))
    ours = engine("ours", port=port, argv=argv, engine="")
    client = lab.supervisor()
    plan = replace(lab.plan(ours, engine("command")), workdir=str(folder))
    client.apply(plan)
    until_phase(client, "ours", "ready")
    until_phase(client, "command", "ready")
    shutil.rmtree(folder)
    client.command("restart", ["ours", "command"])
    wait_until(lambda: component(client, "ours").incarnation == 2, 10)
    until_phase(client, "ours", "ready")
    assert "the working folder no longer exists" in until_phase(client, "command", "failed").cause


def test_needs_gate_the_start_and_nothing_else(lab: World) -> None:
    first = engine("first", "--ready-after", "0.5")
    second = engine("second", needs=("first",))
    client = lab.up(second, first)
    assert component(client, "second").phase == "pending"
    assert component(client, "second").cause == "waiting for first"
    pid = until_phase(client, "second", "ready").pid
    client.command("restart", ["first"])
    wait_until(lambda: component(client, "first").incarnation == 2, 10)
    until_phase(client, "first", "ready")
    assert component(client, "second").pid == pid


def test_output_is_kept_by_incarnation(lab: World) -> None:
    from llmlaunch.supervision.logs.component_logs import last_rows, log_files

    argv = (sys.executable, "-c", "import os; print('life', os.environ['LLMLAUNCH_INCARNATION'])")
    client = lab.up(engine("brief", argv=argv))
    until_phase(client, "brief", "failed")
    files = log_files("lab", "brief")
    assert [last_rows(file) for file in files] == [["life 1"], ["life 2"], ["life 3"]]


def test_a_wrapped_process_is_ended_whole_by_the_signal_that_it_wants(lab: World, tmp_path: Path) -> None:
    """A wrapper that forks, and an engine that ends at SIGINT alone."""
    wrapper = ("sh", "-c", '"$@"; echo wrapped', "sh")
    spec = engine("tiny", "--ignore-term", stop_grace_s=60.0)
    spec = replace(
        spec,
        argv=(*wrapper, *spec.argv),
        prefix=len(wrapper),
        stop_signal="SIGINT",
        workdir=str(tmp_path),
        path_first=str(tmp_path / "bin"),
        own_python=True,
    )
    client = lab.up(spec)
    until_phase(client, "tiny", "ready")
    seen = get(spec, "/seen")
    assert seen["env"]["PATH"].startswith(f"{tmp_path}/bin:")
    assert psutil.Process(seen["pid"]).cwd() == str(tmp_path)
    client.shutdown()
    until_dead(seen["pid"])
    assert client.wait_gone(10)
    assert not lab.processes()


def test_a_working_folder_that_is_gone_is_told(lab: World, tmp_path: Path) -> None:
    client = lab.up(engine("tiny", workdir=str(tmp_path / "gone")))
    assert (
        f"the working folder no longer exists: {tmp_path}/gone" in until_phase(client, "tiny", "failed").cause
    )
