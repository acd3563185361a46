"""What a person sees who waits while others are at work on the same deployment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cli.support import Fake, manifest, piped, write
from tests.support import deployment
from tests.support.deployment import Cli


@pytest.fixture
def cli() -> Iterator[Cli]:
    with deployment.cli() as box:
        yield box


def test_waiting_for_what_somebody_else_stops_or_removes_ends_with_the_reason(cli: Cli) -> None:
    slow, tiny = Fake("slow", ["--ready-after", "60"]), Fake("tiny")
    path = write(cli, slow, tiny)
    with piped(cli, "up", "-d") as up:
        up.until("slow-1: starting")
        cli.ok("down", "slow-1")
        assert up.end() == 1
        assert "error: slow-1: stopped: stopped by command" in up.text

    path.write_text(manifest(slow, tiny))
    with piped(cli, "up", "-d") as up:
        up.until("slow-1: starting")
        path.write_text(manifest(tiny))
        cli.ok("up", "-d")
        assert up.end() == 1
        assert "error: slow-1: stopped: removed from the manifest" in up.text
    cli.ok("down")
