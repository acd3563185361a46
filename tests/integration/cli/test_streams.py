"""Standard streams that are closed, or end on a full disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.cli.support import Fake, write
from tests.support import deployment
from tests.support.deployment import Cli


@pytest.fixture(scope="module")
def lab() -> Iterator[Cli]:
    with deployment.cli() as cli:
        write(cli, Fake("tiny"))
        cli.ok("up", "-d")
        yield cli


def shell(cli: Cli, words: str, streams: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -m llmlaunch {words} {streams}"],
        cwd=cli.cwd, env=cli.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["status", "status --json", "plan", "restart tiny-1", "up -d", "--help"])
def test_closed_streams_are_no_fault(lab: Cli, words: str, streams: str) -> None:
    done = shell(lab, words, streams)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["status", "status --json", "plan --json", "schema", "--help", "logs tiny"])
def test_what_cannot_be_printed_is_one_message(lab: Cli, words: str) -> None:
    done = shell(lab, words, ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: cannot print: No space left on device\n")


def test_a_full_disk_under_its_output_does_not_keep_up_from_its_work(lab: Cli) -> None:
    lab.ok("down", "tiny-1")
    done = shell(lab, "up -d", ">/dev/full")
    assert (done.returncode, done.stderr) == (0, "")
    assert lab.component("tiny-1")["phase"] == "ready"
