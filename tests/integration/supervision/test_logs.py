"""The log of a real process under a real shim: bounded, whole, and no reason for the process to wait."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llmlaunch import paths
from llmlaunch.supervision.logs import component_logs, log_stream
from llmlaunch.supervision.processes.spawn import ProcessTree, Shims, reap_children, start_under_shim
from tests.support.waiting import wait_until

WHERE = paths.DeploymentPaths("lab")
LOG = "w-1.000001.log"


async def start(program: str, most: int = 64 << 10, keep: int = 3) -> tuple[ProcessTree, int]:
    with component_logs.target(WHERE, "w-1", 1, most, keep) as target:
        tree = start_under_shim([sys.executable, "-c", program], dict(os.environ), "/", target, Shims())
    return tree, await tree.started("it")


async def end_of(tree: ProcessTree) -> tuple[int | None, int]:
    """As ``tree.ended``; the shim is reaped, too, as the supervisor does at SIGCHLD."""
    found = await tree.ended()

    def shim_is_reaped() -> bool:
        reap_children([], Shims())
        return not psutil.pid_exists(tree.shim_pid)

    await until(shim_is_reaped)
    return found


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def printed() -> bytes:
    stream = log_stream.LogStream(WHERE.log("w-1", 1))
    try:
        return b"".join(iter(stream.read, b""))
    finally:
        stream.close()


def writer_of(tree: ProcessTree) -> psutil.Process:
    def found() -> psutil.Process | None:
        children = psutil.Process(tree.shim_pid).children()
        return next((c for c in children if "".join(c.cmdline()[:1]).startswith("llmlaunch: writes")), None)

    return wait_until(found, what="the writer of the log has its name")


def count_to(number: int) -> str:
    """A program that prints lines as fast as it can, tells how far it is, and stays."""
    return f"""
import os, time
for number in range({number}):
    os.write(1, b"line %08d, as long as lines of logs are\\n" % number)
    if number % 1000 == 0:
        with open("progress", "w") as file: file.write(str(number))
with open("progress", "w") as file: file.write("done")
time.sleep(60)
"""


def test_the_log_of_one_life_is_bounded_and_its_end_is_whole(home: Path) -> None:
    async def test() -> None:
        program = (
            'import os\nfor n in range(50_000): os.write(1, b"line %d\\n" % n)\nos.write(2, b"last words")'
        )
        tree, _ = await start(program)
        assert await end_of(tree) == (0, 0)

    run(test)
    files = list(WHERE.logs.iterdir())
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) <= 3 * 64 << 10
    expected = b"".join(b"line %d\n" % n for n in range(50_000)) + b"last words"
    assert expected.endswith(printed())
    assert len(printed()) > 2 * 64 << 10


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_last_words_are_there_when_the_end_is_told(home: Path, end: str) -> None:
    async def test() -> None:
        tree, _ = await start(f'import os\nos.write(1, b"x" * 30_000 + b"\\nlast words\\n")\n{end}')
        await end_of(tree)
        assert component_logs.last_rows(WHERE.log("w-1", 1))[-1:] == ["last words"]

    run(test)


def test_a_program_without_a_folder_for_its_log_runs_all_the_same(home: Path) -> None:
    async def test() -> None:
        target = component_logs.LogTarget(-1, LOG, 1000, 2)
        argv = [sys.executable, "-c", "print('x' * 1_000_000, flush=True); raise SystemExit(7)"]
        tree = start_under_shim(argv, dict(os.environ), "/", target, Shims())
        await tree.started(argv[0])
        assert await end_of(tree) == (7, 0)

    run(test)


def test_a_writer_that_is_killed_is_replaced_and_nothing_is_missing(home: Path) -> None:
    async def test() -> None:
        tree, _ = await start(
            'import time\nfor n in range(300): print("line", n, flush=True); time.sleep(0.01)'
        )
        await until(lambda: b"line 20\n" in printed())
        writer_of(tree).kill()
        assert await end_of(tree) == (0, 0)

    run(test)
    assert printed() == b"".join(b"line %d\n" % n for n in range(300))


@pytest.mark.parametrize("who", ["writer", "shim"])
def test_a_program_goes_on_when_its_log_is_not_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """More than any pipe holds: without help it would wait for ever."""

    async def test() -> None:
        program = f"import os; os.chdir({str(tmp_path)!r})\n" + count_to(60_000)
        tree, pid = await start("import time; time.sleep(0.3)\n" + program)
        stopped = writer_of(tree) if who == "writer" else psutil.Process(tree.shim_pid)
        stopped.suspend()
        await until(
            lambda: (tmp_path / "progress").exists() and (tmp_path / "progress").read_text() == "done"
        )
        stopped.resume()
        os.kill(pid, signal.SIGKILL)
        assert await end_of(tree) == (-9, 0)

    run(test)
    assert b"line 00059999" in printed() or b"[llmlaunch: " in printed()


def test_the_writer_is_gone_with_its_shim(home: Path) -> None:
    async def test() -> None:
        tree, _ = await start("import time; print('here', flush=True); time.sleep(60)")
        await until(lambda: printed() == b"here\n")
        writer = writer_of(tree)
        os.kill(tree.shim_pid, signal.SIGKILL)
        await end_of(tree)
        await until(lambda: not writer.is_running() or writer.status() == psutil.STATUS_ZOMBIE)

    run(test)


@pytest.fixture
def tiny_disk(home: Path) -> Iterator[Path]:
    """The folder of the logs, on a disk of 64 KiB."""
    folder = paths.private_dir(WHERE.logs)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_program_prints_on_while_the_disk_is_full(tiny_disk: Path, tmp_path: Path) -> None:
    async def test() -> None:
        go_on = tmp_path / "go on"
        program = f"""
import os, pathlib, time
print("x" * 200_000, flush=True)
pathlib.Path({str(tmp_path / "printed")!r}).touch()
while not os.path.exists({str(go_on)!r}): time.sleep(0.01)
print("there is room again", flush=True)
"""
        tree, _ = await start(program, most=1 << 20)
        await until((tmp_path / "printed").exists)
        await until(lambda: len(printed()) >= 60_000)
        for file in tiny_disk.iterdir():
            os.truncate(file, 0)
        go_on.touch()
        assert await end_of(tree) == (0, 0)

    run(test)
    assert b"bytes of output are missing here: No space left on device]\n" in printed()
    assert printed().endswith(b"there is room again\n")
