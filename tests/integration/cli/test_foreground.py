"""``up`` in the foreground: what it shows, how it ends, and that it takes everything with it."""

from __future__ import annotations

import os
import signal

from tests.integration.cli.support import FAILS, NO_PATIENCE, Fake, gone, on_terminal, piped, write
from tests.support.deployment import Cli
from tests.support.waiting import wait_until


def test_ctrl_c_on_a_terminal_takes_everything_down_gracefully(cli: Cli) -> None:
    write(cli, Fake("tiny", ["--ready-after", "0.5", "--progress"]))
    with on_terminal(cli, "up") as up:
        up.until("lab is ready")
        assert "\x1b[" in up.text
        assert "tiny-1" in up.text
        up.type("\x03")
        assert up.end() == 130
        assert "lab is down" in up.text
        assert "Traceback" not in up.text
    assert cli.processes() == []


def test_sigterm_is_an_ordinary_end(cli: Cli) -> None:
    write(cli, Fake("tiny"))
    with piped(cli, "up") as up:
        text = up.until("lab is ready")
        assert "\x1b[" not in text
        assert "tiny-1: ready" in text.splitlines()
        up.signal(signal.SIGTERM)
        assert up.end() == 0
        assert "tiny-1: stopped" in up.text
    assert cli.processes() == []


def test_ctrl_c_twice_kills_what_does_not_want_to_end(cli: Cli) -> None:
    write(cli, Fake("tiny", ["--ignore-term"], more={"stop_grace": 60}))
    with piped(cli, "up") as up:
        up.until("lab is ready")
        up.signal(signal.SIGINT)
        up.until("Ctrl-C again kills")
        up.until("tiny-1: stopping")
        up.signal(signal.SIGINT)
        assert up.end(15) == 130
    assert cli.processes() == []


def test_ctrl_c_while_starting(cli: Cli) -> None:
    write(cli, Fake("tiny", ["--ready-after", "60"]))
    with piped(cli, "up") as up:
        up.until("tiny-1: starting")
        up.signal(signal.SIGINT)
        assert up.end(15) == 130
        assert "Traceback" not in up.text
    assert cli.processes() == []


def test_a_terminal_that_is_closed_takes_everything_down_gracefully(cli: Cli) -> None:
    write(cli, Fake("tiny"))
    with on_terminal(cli, "up") as up:
        up.until("lab is ready")
        up.hang_up()
        assert up.end() == 0
    assert cli.processes() == []
    log = cli.ok("logs", "supervisor")
    assert "shutting everything down" in log
    assert "by force" not in log


def test_what_is_printed_after_a_terminal_was_closed_is_no_fault(cli: Cli) -> None:
    """The signal comes a little later than the first error, and to some processes not at all."""
    write(cli, Fake("tiny"))
    with on_terminal(cli, "up", controlling=False) as up:
        up.until("stop      Ctrl-C")
        up.hang_up()
        before = cli.component("tiny-1")
        os.kill(before["pid"], signal.SIGKILL)
        wait_until(lambda: cli.component("tiny-1")["incarnation"] > before["incarnation"])
        up.signal(signal.SIGTERM)
        assert up.end() == 0
    assert cli.processes() == []


def test_nothing_outlives_a_terminal_that_was_killed(cli: Cli) -> None:
    write(
        cli, Fake("tiny", ["--ignore-term", "--spawn-grandchild", "--own-session"], more={"stop_grace": 0.5})
    )
    with piped(cli, "up") as up:
        up.until("lab is ready")
        up.signal(signal.SIGKILL)
        up.end()
        wait_until(gone(cli), 10, "everything gone")


def test_changes_are_told_and_down_from_elsewhere_is_an_ordinary_end(cli: Cli) -> None:
    write(cli, Fake("tiny"))
    with piped(cli, "up") as up:
        up.until("lab is ready")
        os.kill(cli.component("tiny-1")["pid"], signal.SIGKILL)
        up.until("tiny-1: backoff")
        wait_until(lambda: up.text.count("tiny-1: ready") == 2, 20, "tiny-1 back")
        cli.ok("down")
        assert up.end() == 0
        assert "taken down by another command" in up.text


def test_a_supervisor_that_dies_is_told(cli: Cli) -> None:
    write(cli, Fake("tiny"))
    with piped(cli, "up") as up:
        up.until("lab is ready")
        os.kill(cli.status()["supervisor"]["pid"], signal.SIGKILL)
        assert up.end() == 1
        assert "the supervisor died" in up.text
    wait_until(gone(cli), 5, "everything gone")


def test_one_that_fails_does_not_stop_the_others(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    write(cli, Fake("tiny"), Fake("broken", FAILS))
    with piped(cli, "up") as up:
        text = up.until("lab is up without broken-1")
        assert "RuntimeError: this engine was told to fail" in text
        assert cli.ok("test", "tiny")
        up.signal(signal.SIGINT)
        assert up.end() == 130


def test_up_ends_with_1_when_nothing_can_serve(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    write(cli, Fake("broken", FAILS))
    with piped(cli, "up") as up:
        assert up.end() == 1
        assert "no component is left that can serve" in up.text
        assert "RuntimeError: this engine was told to fail" in up.text[up.text.rindex("error:") :]
    assert cli.processes() == []


def test_the_timeout_takes_a_foreground_start_down(cli: Cli) -> None:
    write(cli, Fake("slow", ["--ready-after", "60"]))
    with piped(cli, "up", "--timeout", "1.5") as up:
        assert up.end() == 4
        assert "slow-1: starting" in up.text[up.text.rindex("error:") :]
    assert cli.processes() == []
