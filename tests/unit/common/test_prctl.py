"""Process trees that stay together."""

from __future__ import annotations

import subprocess
import sys

_ORPHAN = """
import os
from llmlaunch.common.prctl import adopt_orphans
adopt_orphans()
told, tell = os.pipe()
if (child := os.fork()) == 0:
    if os.fork() == 0:
        os.read(told, 1)
        os._exit(7 if os.getppid() == int(os.environ["OWNER"]) else 1)
    os._exit(0)
os.waitpid(child, 0)
os.write(tell, b"x")
print(os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))
"""
_PARENT = """
import os, signal
from llmlaunch.common.prctl import die_with_parent
ready, tell = os.pipe()
if (middle := os.fork()) == 0:
    if os.fork() == 0:
        die_with_parent()
        os.write(tell, b"x")
        signal.pause()
    signal.pause()
os.close(tell)
os.read(ready, 1)
os.kill(middle, signal.SIGKILL)
print(os.read(ready, 1))
"""


def run(program: str) -> str:
    program = f"import os; os.environ['OWNER'] = str(os.getpid())\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_orphan_becomes_a_child_of_whoever_adopts() -> None:
    assert run(_ORPHAN) == "7"


def test_a_process_dies_with_its_parent() -> None:
    """The pipe that it holds open comes to its end."""
    assert run(_PARENT) == "b''"
