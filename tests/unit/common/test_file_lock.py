"""One holder at a time, across threads and processes, and an end with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmlaunch.common import file_lock

HOLDER = """
import sys
from pathlib import Path
from llmlaunch.common import file_lock
lock = file_lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def never() -> None:
    raise AssertionError("nobody else holds it")


def test_a_lock_that_is_held_is_refused_and_then_given(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    lock = file_lock.acquire(path, 0.0, waiting=never)
    with pytest.raises(file_lock.LockTakenError):
        file_lock.acquire(path, 0.0)
    lock.release()
    file_lock.acquire(path, 0.0, waiting=never).release()


def test_who_waits_is_told_once_and_served(tmp_path: Path) -> None:
    path, told = tmp_path / "a.lock", list[str]()
    waits = threading.Event()

    def say() -> None:
        told.append("waits")
        waits.set()

    def second() -> None:
        with file_lock.held(path, waiting=say):
            told.append("has it")

    other = threading.Thread(target=second)
    with file_lock.held(path):
        other.start()
        assert waits.wait(10)
        assert told == ["waits"]
    other.join(10)
    assert told == ["waits", "has it"]


def test_patience_ends(tmp_path: Path) -> None:
    told = list[str]()
    with file_lock.held(tmp_path / "a.lock"), pytest.raises(file_lock.LockTakenError):
        file_lock.acquire(tmp_path / "a.lock", 0.1, waiting=lambda: told.append("waits"))
    assert told == ["waits"]


def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(file_lock.LockTakenError):
            file_lock.acquire(path, 0.0)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        file_lock.acquire(path, 0.0, waiting=never).release()


def test_a_child_does_not_inherit_it(tmp_path: Path) -> None:
    """A component that outlives its supervisor must not keep the next one out."""
    path = tmp_path / "a.lock"
    lock = file_lock.acquire(path)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        lock.release()
        try:
            file_lock.acquire(path, 0.0, waiting=never).release()
        finally:
            child.kill()


def test_the_file_is_this_user_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    before = os.umask(0)
    try:
        file_lock.acquire(path).release()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_lock_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.mkdir()
    file_lock.acquire(path, 0.0).release()
    assert path.is_file()
    assert (tmp_path / "a.lock.bad").is_dir()
