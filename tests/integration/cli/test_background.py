"""A deployment in the background, from ``up -d`` to ``down``: one story, in order, on one deployment."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.integration.cli.support import Fake, ask, manifest, on_terminal, piped, tell, write
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.waiting import wait_until


class Lab:
    """Two replicas of one model and one of another, and the manifest they came from."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.tiny = Fake("tiny", replicas=2)
        self.other = Fake("other")
        self.path = write(cli, self.tiny, self.other)
        self.ports = json.loads(self.path.read_text())

    def rewrite(self, *models: Fake) -> None:
        ports = {key: self.ports[key] for key in ("controller", "api")}
        self.path.write_text(manifest(*models, **ports))

    def pids(self) -> dict[str, int]:
        return {c["name"]: c["pid"] for c in self.cli.status()["components"]}

    def phases(self) -> dict[str, str]:
        return {c["name"]: c["phase"] for c in self.cli.status()["components"]}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with deployment.cli() as cli:
        made = Lab(cli)
        out = cli.ok("up", "-d")
        assert "lab is ready" in out
        yield made


def test_up_tells_the_endpoint_and_a_line_that_answers(lab: Lab) -> None:
    out = lab.cli.ok("up", "-d")
    assert f"http://127.0.0.1:{lab.ports['api']['port']}/v1" in out
    assert "tiny, other" in out
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the PATH")
    curl = out[out.index("curl ") :]
    line = textwrap.dedent(curl.split("\n\n")[0])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    before = lab.pids()
    supervisor = lab.cli.status()["supervisor"]
    out = lab.cli.ok("up", "-d")
    assert "unchanged: controller, tiny-1, tiny-2, other-1, api" in out
    assert lab.pids() == before
    assert lab.cli.status()["supervisor"] == supervisor


def test_up_in_the_foreground_does_not_take_over(lab: Lab) -> None:
    out = lab.cli.ok("up")
    assert f"under supervisor {lab.cli.status()['supervisor']['pid']}" in out
    assert set(lab.phases().values()) == {"ready"}


def test_status_in_a_pipe(lab: Lab) -> None:
    lines = lab.cli.ok("status").splitlines()
    assert lines[0].startswith("lab: up ")
    assert "5 of 5 components ready" in lines[0]
    assert [line.split()[0] for line in lines[3:9]] == [
        "NAME",
        "controller",
        "tiny-1",
        "tiny-2",
        "other-1",
        "api",
    ]


def test_status_as_json_has_the_promised_shape(lab: Lab) -> None:
    status = lab.cli.status()
    assert {"deployment", "supervisor", "api", "components", "gpus"} <= set(status)
    assert set(status["supervisor"]) >= {"pid", "started_at"}
    assert status["api"]["url"]
    wanted = {
        "name",
        "component",
        "model",
        "phase",
        "pid",
        "address",
        "gpus",
        "vram_bytes",
        "restarts",
        "since",
        "cause",
    }
    assert all(wanted <= set(c) for c in status["components"])
    tiny = lab.cli.component("tiny-2")
    assert (tiny["phase"], tiny["component"]) == ("ready", "worker")
    assert tiny["address"] == f"http://127.0.0.1:{lab.tiny.port + 1}"


def test_status_imports_nothing_heavy(lab: Lab) -> None:
    program = """
import sys
from llmlaunch.cli import main
sys.argv = ["llmlaunch", "status", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "transformers", "ray", "fastapi", "starlette", "uvicorn", "httpx", "pydantic", "rich", "yaml", "psutil", "pynvml"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""
    for words in ([], ["--json"], ["--name", "lab"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=lab.cli.cwd, env=lab.cli.environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "heavy: []"


def test_watching_as_json_is_one_line_a_look(lab: Lab) -> None:
    process = lab.cli.start("status", "--watch", "--json")
    assert process.stdout
    looks = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert [look["deployment"] for look in looks] == ["lab", "lab"]
    assert process.returncode == 130
    assert "Traceback" not in err


def test_status_on_a_terminal_has_colour_unless_it_is_not_wanted(lab: Lab) -> None:
    with on_terminal(lab.cli, "status") as status:
        assert status.end() == 0
        assert "\x1b[32mready" in status.text
    lab.cli.env["NO_COLOR"] = "1"
    try:
        with on_terminal(lab.cli, "status") as status:
            assert status.end() == 0
            assert "tiny-2" in status.text
            assert "\x1b[3" not in status.text
    finally:
        del lab.cli.env["NO_COLOR"]


def test_watching_on_a_terminal_until_ctrl_c(lab: Lab) -> None:
    with on_terminal(lab.cli, "status", "--watch") as watch:
        watch.until("tiny-2")
        wait_until(lambda: watch.text.count("tiny-2") >= 2, what="a second look")
        watch.type("\x03")
        assert watch.end() == 130
        assert "Traceback" not in watch.text


def test_completion_knows_what_runs(lab: Lab) -> None:
    def complete(words: str) -> list[str]:
        environment = lab.cli.environment | {"_LLMLAUNCH_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environment |= {"COMP_CWORD": str(words.count(" "))}
        program = "import sys; sys.argv = ['llmlaunch']; from llmlaunch.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=lab.cli.cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout.split()

    assert complete("llmlaunch restart ti") == ["tiny", "tiny-1", "tiny-2"]
    assert complete("llmlaunch test ") == ["other", "tiny"]
    assert complete("llmlaunch sta") == ["status"]


def test_status_into_a_pipe_that_closes(lab: Lab) -> None:
    line = f"{sys.executable} -m llmlaunch status --watch | head -1"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=lab.cli.cwd,
        env=lab.cli.environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout.startswith("lab:")
    assert done.stderr == ""


def test_selecting_by_file_and_name(lab: Lab) -> None:
    assert lab.cli.status("-f", "deploy.yaml")["deployment"] == "lab"
    assert lab.cli.status("--name", "lab")["deployment"] == "lab"
    done = lab.cli.run("status", "--name", "elsewhere")
    assert done.returncode == 3
    assert "'elsewhere' is not running" in done.stderr


def test_logs_of_a_component_and_of_a_model(lab: Lab) -> None:
    assert f"'--port', '{lab.tiny.port}'" in lab.cli.ok("logs", "tiny-1")
    both = lab.cli.ok("logs", "tiny").splitlines()
    assert {line.split(" | ")[0].strip() for line in both} == {"tiny-1", "tiny-2"}
    assert len(lab.cli.ok("logs", "tiny-1", "-n", "1").splitlines()) == 1
    assert lab.cli.ok("logs", "tiny-1", "-n", "0") == ""
    lab.cli.ok("logs", "supervisor")
    assert "tiny-2" in lab.cli.ok("logs")


def test_logs_of_nobody_is_exit_code_2_with_the_nearest(lab: Lab) -> None:
    done = lab.cli.run("logs", "tyny")
    assert done.returncode == 2
    assert "did you mean 'tiny'" in done.stderr


def test_test_and_chat_go_through_the_endpoint(lab: Lab) -> None:
    assert "word0" in lab.cli.ok("test", "tiny")
    assert "word0" in lab.cli.ok("chat", "other", stdin="hello\n")
    done = lab.cli.run("test", "tyny")
    assert done.returncode == 1
    assert "`tyny`" in done.stderr
    assert "did you mean 'tiny'? ready: other, tiny" in done.stderr


def test_restart_ends_one_life_and_begins_another_while_logs_follow(lab: Lab) -> None:
    before = lab.pids()
    with piped(lab.cli, "logs", "-f", "tiny-1") as follow:
        follow.until("fake engine")
        out = lab.cli.ok("restart", "tiny-1")
        assert "tiny-1: ready" in out
        after = lab.pids()
        wait_until(lambda: follow.text.count("fake engine, pid") == 2, what="both lives in the log")
        follow.signal(signal.SIGINT)
        assert follow.end() == 130
        assert "Traceback" not in follow.text
    assert {name for name in before if before[name] != after[name]} == {"tiny-1"}
    assert lab.cli.ok("logs", "tiny-1", "--previous") != lab.cli.ok("logs", "tiny-1")
    # tiny-2 has had one life only: of its model, there is the one of tiny-1.
    assert lab.cli.ok("logs", "tiny", "--previous") == lab.cli.ok("logs", "tiny-1", "--previous")
    assert lab.cli.run("logs", "tiny-2", "other-1", "--previous").returncode == 2


def test_restart_of_nobody(lab: Lab) -> None:
    done = lab.cli.run("restart", "tiny", "controler")
    assert done.returncode == 2
    assert "'controller'" in done.stderr


def test_a_crash_is_mended_and_status_counts_it(lab: Lab) -> None:
    address = lab.cli.component("other-1")["address"]
    pid = lab.pids()["other-1"]
    with contextlib.suppress(http.client.RemoteDisconnected):
        tell(address, "/crash")
    wait_until(lambda: lab.cli.component("other-1")["restarts"] >= 1, what="the restart to be counted")
    wait_until(lambda: lab.phases()["other-1"] == "ready", 20, "other-1 back")
    assert lab.pids()["other-1"] != pid


def test_a_part_goes_down_and_comes_back(lab: Lab) -> None:
    before = lab.pids()
    lab.cli.ok("down", "tiny-2")
    assert lab.phases() | {"tiny-2": ""} == dict.fromkeys(lab.phases(), "ready") | {"tiny-2": ""}
    lab.cli.ok("down", "--component", "worker")
    phases = lab.phases()
    assert {name: phase for name, phase in phases.items() if phase == "ready"}.keys() == {"controller", "api"}
    assert {phases[name] for name in ("tiny-1", "tiny-2", "other-1")} == {"stopped"}
    done = lab.cli.run("test", "tiny")
    assert done.returncode == 1
    assert "503" in done.stderr
    out = lab.cli.ok("up", "-d")
    assert "started: tiny-1, tiny-2, other-1" in out
    after = lab.pids()
    assert {name for name in before if before[name] == after[name]} == {"controller", "api"}
    assert ask(lab.cli.component("tiny-1")["address"] + "/health")


def test_up_changes_only_what_differs(lab: Lab) -> None:
    before = lab.pids()
    new = Fake("new")
    changed = Fake("other", ["--chunks", "2"], port=lab.other.port)
    lab.rewrite(lab.tiny, changed, new)
    out = lab.cli.ok("up", "-d")
    assert "started: new-1" in out
    assert "restarted: other-1" in out
    after = lab.pids()
    assert all(before[name] == after[name] for name in ("controller", "tiny-1", "tiny-2"))
    assert before["other-1"] != after["other-1"]
    assert lab.cli.ok("test", "new")
    lab.rewrite(lab.tiny, changed)
    assert "removed: new-1" in lab.cli.ok("up", "-d")
    assert "new-1" not in lab.phases()


def test_down_leaves_nothing_but_logs(lab: Lab) -> None:
    out = lab.cli.ok("down")
    assert "lab is down" in out
    assert lab.cli.processes() == []
    done = lab.cli.run("status")
    assert done.returncode == 3
    assert "not running" in done.stderr
    again = lab.cli.run("down")
    assert again.returncode == 0
    assert "nothing to take down" in again.stdout
    assert "fake engine" in lab.cli.ok("logs", "tiny-1")
    assert "tiny-1" in lab.cli.ok("logs", "tiny")
    assert lab.cli.run("logs", "nobody").returncode == 2
