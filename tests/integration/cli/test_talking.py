"""``test`` and ``chat`` against an endpoint: a small fake engine is one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.support import ENGINE, ask, on_terminal, tell
from tests.support.deployment import Cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(ENGINE), "--port", str(port), "--names", "tiny", "--chunks", "3"],
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{url}/health", timeout=5).status == 200)
        except urllib.error.URLError:
            return False

    try:
        wait_until(up)
        yield url
    finally:
        process.kill()
        process.wait()


def seen(base: str) -> dict[str, Any]:
    return dict(ask(f"{base}/seen"))


@pytest.fixture(autouse=True)
def well(base: str) -> Iterator[None]:
    yield
    tell(base, "/set", chunks=3, chunk_delay=0, first_delay=0, status=0)


def test_an_answer_is_printed_and_the_exit_code_is_0(cli: Cli, base: str) -> None:
    assert cli.ok("test", "tiny", "--api-base", base).strip() == "word0 word1 word2"


def test_the_key_is_sent(cli: Cli, base: str) -> None:
    cli.env |= {"LLMLAUNCH_API_KEY": "sk-own", "OPENAI_API_KEY": "sk-other"}
    cli.ok("test", "tiny", "--api-base", base + "/v1")
    assert seen(base)["headers"]["authorization"] == "Bearer sk-own"


def test_an_empty_answer_is_no_answer(cli: Cli, base: str) -> None:
    tell(base, "/set", chunks=0)
    done = cli.run("test", "tiny", "--api-base", base)
    assert done.returncode == 1
    assert "empty" in done.stderr


def test_an_error_is_one_message(cli: Cli, base: str) -> None:
    tell(base, "/set", status=500)
    done = cli.run("test", "tiny", "--api-base", base)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 500: as told")
    assert "Traceback" not in done.stderr


def test_nobody_there(cli: Cli) -> None:
    done = cli.run("test", "tiny", "--api-base", f"http://127.0.0.1:{free_port()}/v1")
    assert done.returncode == 1
    assert "nobody answers" in done.stderr


def test_too_slow_is_exit_code_4(cli: Cli, base: str) -> None:
    tell(base, "/set", first_delay=20)
    done = cli.run("test", "tiny", "--api-base", base, "--timeout", "0.3")
    assert done.returncode == 4
    assert "0.3 s" in done.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://[::1", "http://x:99999"])
def test_what_is_no_url_is_exit_code_2(cli: Cli, url: str) -> None:
    done = cli.run("test", "tiny", "--api-base", url)
    assert done.returncode == 2
    assert "is not a URL" in done.stderr


def test_a_conversation_through_a_pipe(cli: Cli, base: str) -> None:
    saved = cli.cwd / "talk.json"
    lines = [
        "hello",
        "!!regen",
        "again",
        "/remove",
        f"/save {saved}",
        "/reset",
        f"/load {saved}",
        "/exit",
        "never sent",
    ]
    out = cli.ok("chat", "tiny", "--api-base", base, "--system", "be brief", stdin="\n".join(lines))
    assert out.count("word0 word1 word2") == 3
    messages = json.loads(saved.read_text())["messages"]
    assert [m["content"].strip() for m in messages] == ["be brief", "hello", "word0 word1 word2"]
    assert "loaded 3 messages" in out


def test_the_history_is_sent(cli: Cli, base: str) -> None:
    cli.ok("chat", "tiny", "--api-base", base, "--temperature", "0.5", stdin="one\ntwo\n")
    last = seen(base)["last"]
    assert [m["content"].strip() for m in last["messages"]] == ["one", "word0 word1 word2", "two"]
    assert last["temperature"] == 0.5


def test_a_pipe_with_a_failed_answer_is_exit_code_1_and_goes_on(cli: Cli, base: str) -> None:
    done = cli.run("chat", "tiny", "--api-base", base, stdin="/nonsense\nhello\n")
    assert done.returncode == 1
    assert "/nonsense" in done.stderr
    assert "word0" in done.stdout


def test_a_model_that_is_not_served_gets_the_nearest(cli: Cli, base: str) -> None:
    done = cli.run("chat", "tinny", "--api-base", base, stdin="hello\n")
    assert done.returncode == 2
    assert "'tiny'" in done.stderr


def test_ctrl_c_in_a_pipe_ends_and_cancels(cli: Cli, base: str) -> None:
    tell(base, "/set", chunks=1000, chunk_delay=0.05)
    before = int(str(seen(base)["cancelled"]))
    process = cli.start("chat", "tiny", "--api-base", base, stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.read(5) == "word0"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    wait_until(lambda: int(str(seen(base)["cancelled"])) > before, what="the engine to notice")


def test_ctrl_c_on_a_terminal_stops_the_answer_only(cli: Cli, base: str) -> None:
    tell(base, "/set", chunks=1000, chunk_delay=0.05)
    with on_terminal(cli, "chat", "tiny", "--api-base", base) as chat:
        chat.until("> ")
        chat.type("hello\n")
        chat.until("word1")
        chat.type("\x03")
        chat.until("(stopped)")
        chat.type("/exit\n")
        assert chat.end() == 0
        assert "Traceback" not in chat.text


def test_ctrl_d_ends(cli: Cli, base: str) -> None:
    with on_terminal(cli, "chat", "tiny", "--api-base", base) as chat:
        chat.until("> ")
        chat.type("\x04")
        assert chat.end() == 0
