"""What an engine prints: bounded on the disk, harmless on the terminal, and no reason for anybody to wait."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.integration.cli.support import ENGINE, NO_PATIENCE, Fake, write
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.waiting import wait_until

NASTY = r"\033]52;c;cm0gLXJm\007 \033]0;a title\007 \302\233 secret\b\b\b 10%%\r 50%%\r100%%"
"""For printf: the clipboard, the title, C1, backspaces and a progress bar."""


@pytest.fixture
def cli() -> Iterator[Cli]:
    with deployment.cli(**NO_PATIENCE) as box:
        yield box


def printing(name: str, before: str, *flags: str, **more: object) -> Fake:
    """A fake engine behind a shell that runs ``before``."""
    fake = Fake(name, more=dict(more))
    engine = [sys.executable, "-I", "-S", str(ENGINE), "--port", str(fake.port), "--names", name, *flags]
    fake.more["command"] = ["bash", "-c", f"{before}\nexec {shlex.join(engine)}"]
    return fake


def test_control_characters_of_an_engine_are_shown_and_not_sent(cli: Cli) -> None:
    write(cli, printing("nasty", rf"printf '{NASTY}\n{NASTY}'; exit 3"))
    up = cli.run("up", "-d")
    assert up.returncode == 1
    shown = [up.stdout + up.stderr, cli.ok("status"), cli.ok("logs", "nasty"), cli.ok("logs", "supervisor")]
    for text in shown:
        assert not [c for c in text if (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0) and c not in "\n\t"], text
    assert all("^[]52;c;cm0gLXJm^G" in text for text in shown[2:3])
    assert cli.ok("logs", "nasty").splitlines()[-2:] == [" 50%", "100%"]
    assert "\x1b]52;c;cm0gLXJm\x07" in cli.ok("logs", "nasty", "--raw")
    cli.ok("down")


def test_an_engine_that_prints_without_end_fills_no_disk_even_if_nobody_supervises(cli: Cli) -> None:
    flood = "(while printf '%0100d\\n' {1..200}; do :; done) &"
    write(cli, printing("chatty", flood, log_max="64KiB", log_keep=2))
    cli.ok("up", "-d")
    logs = next(cli.home.rglob("supervisor.log")).parent

    def parts() -> list[int]:
        """What is there now: numbers of the files that were written to their end."""
        return [int(path.suffix[1:]) for path in logs.glob("chatty-1.*.log.*")]

    def size() -> int:
        found = 0
        for path in logs.glob("chatty-1.*"):
            try:
                found += path.stat().st_size
            except FileNotFoundError:
                pass
        return found

    supervisor = cli.status()["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        before = max(parts(), default=0)
        # A file more than are kept, and another: the oldest went meanwhile.
        wait_until(lambda: max(parts(), default=0) > before + 3, 15, "files that come and go")
        assert size() <= 3 * 64 << 10, "two files, and one that is about to go"
    finally:
        os.kill(supervisor, signal.SIGCONT)
    lines = cli.ok("logs", "chatty", "-n", "5").splitlines()
    assert [len(line) for line in lines[:4]] == [100] * 4
    assert len(lines) == 5
    cli.ok("down")


KINDS = {
    "pipes": os.mkfifo,
    "links": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pipes_and_links_where_files_of_ours_should_be_stop_nobody(cli: Cli, kind: str) -> None:
    write(cli, Fake("tiny"))
    state = cli.home / "state"
    (state / "lab" / "logs").mkdir(parents=True, mode=0o755)
    for name in ("learned.json", "learned.lock", "planning.lock"):
        KINDS[kind](state / name)
    for name in ("state.json", "lock", "logs/supervisor.log", "logs/tiny-1.000001.log"):
        KINDS[kind](state / "lab" / name)
    cli.ok("up", "-d", timeout_s=40)
    assert cli.component("tiny-1")["phase"] == "ready"
    assert "fake engine" in cli.ok("logs", "tiny")
    assert "tiny-1 2: starting → ready" in cli.ok("logs", "supervisor", "-n", "50")
    cli.ok("down")
    kept = {path.name for path in state.rglob("*.bad*")}
    assert {"state.json.bad", "lock.bad", "supervisor.log.bad", "learned.json.bad"} <= kept
    loose = [p for p in (state, *state.rglob("*")) if p.is_dir() and p.parent in (state, state / "lab")]
    assert not [p for p in loose if ".bad" not in p.name and p.stat().st_mode & 0o077]
