"""A real deployment for tests: the ``llmlaunch`` command in a home of its own, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from llmlaunch import paths
from tests.support import groups
from tests.support.waiting import wait_until


@dataclass
class Cli:
    """Runs ``llmlaunch`` verbs. ``cwd`` is where the manifest lies."""

    home: Path
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable

    @property
    def environment(self) -> dict[str, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith("LLMLAUNCH_")}
        base |= {"LLMLAUNCH_HOME": str(self.home), "LLMLAUNCH_CACHE": str(paths.cache_root())}
        return base | {"HF_HUB_OFFLINE": "1", "COLUMNS": "160"} | self.env

    def start(self, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
        """Start a verb and return at once; the caller ends it."""
        streams = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            "text": True,
        } | kwargs
        return subprocess.Popen(
            [self.python, "-m", "llmlaunch", *args], cwd=self.cwd, env=self.environment, **streams
        )

    def run(self, *args: str, stdin: str = "", timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", "llmlaunch", *args]
        return subprocess.run(
            command,
            cwd=self.cwd,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def ok(self, *args: str, stdin: str = "", timeout_s: float = 120) -> str:
        """Run a verb that must succeed; what it printed to stdout."""
        done = self.run(*args, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, (
            f"llmlaunch {' '.join(args)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def status(self, *args: str) -> dict[str, Any]:
        return dict(json.loads(self.ok("status", "--json", *args)))

    def component(self, name: str) -> dict[str, Any]:
        return next(dict(c) for c in self.status()["components"] if c["name"] == name)

    def processes(self) -> list[psutil.Process]:
        """Every live process that belongs to this home, found by its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("LLMLAUNCH_HOME") == str(self.home):
                    found.append(process)
        return found


@contextlib.contextmanager
def cli(cwd: Path | None = None, /, **env: str) -> Iterator[Cli]:
    """A :class:`Cli` in a fresh home. Whatever it started is gone at the end, also when the test failed."""
    home = Path(tempfile.mkdtemp(prefix="llmlaunch-test-"))
    folder = cwd or home / "cwd"
    folder.mkdir(exist_ok=True)
    box = Cli(home, folder, env)
    try:
        yield box
    finally:
        with groups.removed(home):
            for process in box.processes():
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            wait_until(lambda: not box.processes(), 10, "every process of the test's home gone")
        shutil.rmtree(home, ignore_errors=True)
