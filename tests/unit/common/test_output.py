"""What a serving process prints, on outputs that take nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from llmlaunch.common.output import ignore_write_errors

SCRIPT = """
import logging, os, sys
SETUP
from llmlaunch.http_server import configure_logging
configure_logging("info")
import typer
for _ in range(2000):
    print("out" * 20)
    typer.echo("echo", err=True)
    logging.getLogger("llmlaunch.x").warning("a line")
    sys.stdout.write("without an end")
sys.stdout.flush()
os.write(int(sys.argv[1]), b"alive")
"""
OUTPUTS = {
    "a full disk": "for n in (1, 2): os.dup2(os.open('/dev/full', os.O_WRONLY), n)",
    "a reader that left": "r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.dup2(w, 2)",
    "read-only": "for n in (1, 2): os.dup2(os.open('/dev/null', os.O_RDONLY), n)",
    "a full pipe that does not block": "r, w = os.pipe2(os.O_NONBLOCK); os.dup2(w, 1); os.dup2(w, 2)",
}


@pytest.mark.parametrize("setup", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("unbuffered", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_printing_ends_no_process(setup: str, unbuffered: list[str]) -> None:
    told, tell = os.pipe()
    done = subprocess.run(
        [sys.executable, *unbuffered, "-c", SCRIPT.replace("SETUP", setup), str(tell)],
        pass_fds=(tell,), timeout=60, check=False,
    )  # fmt: skip
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        assert (done.returncode, pipe.read()) == (0, b"alive")


def test_what_can_be_written_is_written_in_order() -> None:
    script = (
        "import sys, logging\nfrom llmlaunch.http_server import configure_logging\nconfigure_logging('info')\n"
        "import typer\nprint('one')\ntyper.echo('two é')\nsys.stdout.buffer.write(b'three')\n"
        "logging.getLogger('llmlaunch').info('four')\ntyper.echo('five', err=True)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    assert done.stdout.decode() == "one\ntwo é\nthree"
    assert done.stderr.endswith(b"five\n")
    assert b"four" in done.stderr


def test_streams_that_are_not_ours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    before = sys.stdout, sys.stderr
    ignore_write_errors()
    assert (sys.stdout, sys.stderr) == before
