"""Deployments of fake engines behind the real controller and gateway, and a terminal to run verbs on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.deployment import Cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ENGINE = Path(__file__).parents[2] / "support" / "fake_engine.py"


@dataclass
class Fake:
    """One model of a manifest, served by fake engines."""

    name: str
    flags: Sequence[str] = ()
    replicas: int = 1
    more: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        if not self.port:  # the replicas take the ports after the first
            self.port = free_port(together=self.replicas)

    def entry(self) -> dict[str, Any]:
        command = [sys.executable, "-I", "-S", str(ENGINE), "--host", "{host}", "--port", "{port}"]
        return {
            "model": f"fake-{self.name}",
            "names": [self.name],
            "engine": "command",
            "port": self.port,
            "replicas": self.replicas,
            "command": [*command, "--names", self.name, *self.flags],
            **self.more,
        }


FAILS = ["--fail-start"]
NO_PATIENCE = {"LLMLAUNCH_SUPERVISION": json.dumps({"first_delay_s": 0.05, "max_failures": 2})}
"""Environment of a supervisor that gives up soon."""


def manifest(*models: Fake, name: str | None = "lab", **more: Any) -> str:
    """A manifest whose ports are all free now. JSON is YAML."""
    data = {
        **({"name": name} if name else {}),
        "controller": {"port": free_port()},
        "api": {"port": free_port()},
        "models": [model.entry() for model in models],
    }
    return json.dumps(data | more, indent=1)


def write(cli: Cli, *models: Fake, file: str = "deploy.yaml", name: str | None = "lab", **more: Any) -> Path:
    path = cli.cwd / file
    path.write_text(manifest(*models, name=name, **more))
    return path


def tell(url: str, path: str = "", **body: object) -> None:
    """POST to a fake engine."""
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


class Running:
    """A verb that goes on, on a pipe or a pseudo terminal; everything it printed is in ``text``."""

    def __init__(self, process: subprocess.Popen[Any], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._bytes = b""
        os.set_blocking(descriptor, False)

    @property
    def text(self) -> str:
        try:
            while data := os.read(self._descriptor, 65536):
                self._bytes += data
        except (BlockingIOError, OSError):  # nothing more now; EIO is the end of a terminal
            pass
        return self._bytes.decode(errors="replace")

    def until(self, word: str, deadline_s: float = 30) -> str:
        def there() -> bool:
            return word in self.text or self.process.poll() is not None

        try:
            wait_until(there, deadline_s, f"{word!r} in what was printed")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.text}") from None
        assert word in self.text, f"ended with {self.process.returncode}:\n{self.text}"
        return self.text

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def close(self) -> None:
        os.close(self._descriptor)

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def hang_up(self) -> None:
        """Close the terminal, as a window or a connection does."""
        os.close(self._descriptor)
        self._descriptor = os.open(os.devnull, os.O_RDONLY)

    def end(self, deadline_s: float = 30) -> int:
        wait_until(lambda: (self.text, self.process.poll() is not None)[1], deadline_s, "the end")
        return int(self.process.returncode)


@contextmanager
def piped(cli: Cli, *words: str) -> Iterator[Running]:
    """Run a verb with both outputs in one pipe."""
    read_end, write_end = os.pipe()
    process = cli.start(*words, stdout=write_end, stderr=write_end)
    os.close(write_end)
    yield from _managed(Running(process, read_end))


RUN = """
import os, sys
os.execv(sys.executable, [sys.executable, "-m", "llmlaunch", *sys.argv[1:]])
"""
TAKE_TERMINAL = f"""
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
{RUN}
"""


@contextmanager
def on_terminal(cli: Cli, *words: str, controlling: bool = True) -> Iterator[Running]:
    """Run a verb on a terminal of its own, usually the controlling one: Ctrl-C typed there is SIGINT."""
    main, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL if controlling else RUN, *words],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=cli.cwd,
        env={**cli.environment, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(end)
    yield from _managed(Running(process, main))


def _managed(running: Running) -> Iterator[Running]:
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        running.close()


def gone(cli: Cli) -> Callable[[], bool]:
    return lambda: not cli.processes()
