from __future__ import annotations

import io

import pytest

from llmlaunch.cli.display import live_view, tables
from llmlaunch.cli.display.progress import StartProgress
from tests.unit.cli.values import GPU, NOW, event, report, worker


class Pipe:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self.view = live_view.PlainView(self.lines.append, lambda: self.now)


def test_a_pipe_gets_one_line_a_change() -> None:
    pipe = Pipe()
    for change in (worker(phase="pending"), worker(phase="starting"), worker(phase="starting"), worker()):
        pipe.view.change(event(1, change))
    assert pipe.lines == ["smollm2-1: pending", "smollm2-1: starting", "smollm2-1: ready"]


def test_progress_is_told_once_a_second() -> None:
    pipe = Pipe()
    for tick in range(25):
        pipe.now = tick / 10
        pipe.view.change(event(1, worker(phase="starting", progress=f"{tick} MiB")))
    pipe.view.change(event(1, worker()))
    assert pipe.lines == [
        "smollm2-1: starting: 0 MiB",
        "smollm2-1: starting: 10 MiB",
        "smollm2-1: starting: 20 MiB",
        "smollm2-1: ready",
    ]


def test_the_next_life_is_told_at_once() -> None:
    pipe = Pipe()
    pipe.view.change(event(1, worker(phase="starting", progress="a", incarnation=1)))
    pipe.view.change(event(2, worker(phase="starting", progress="b", incarnation=2)))
    assert len(pipe.lines) == 2


def test_a_failure_comes_with_its_last_lines() -> None:
    pipe = Pipe()
    pipe.view.change(event(1, worker(phase="backoff", cause="exit code 1"), NOW, "RuntimeError: boom"))
    assert pipe.lines == ["smollm2-1: backoff: exit code 1", "  | RuntimeError: boom"]


def test_lives_that_end_alike_are_told_without_their_lines() -> None:
    pipe = Pipe()
    for life in range(3):
        pipe.view.change(event(1, worker(phase="starting", incarnation=life)))
        pipe.view.change(
            event(2, worker(phase="backoff", cause="exit code 1", incarnation=life), NOW, "boom")
        )
    pipe.view.change(event(3, worker()))
    pipe.view.change(event(4, worker(phase="backoff", cause="exit code 1"), NOW, "boom"))
    assert pipe.lines.count("  | boom") == 2
    assert pipe.lines.count("smollm2-1: backoff: exit code 1") == 4


@pytest.fixture
def terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> pytest.CaptureFixture[str]:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    return capsys


def test_a_terminal_gets_a_board_that_ends_in_the_last_state(terminal: pytest.CaptureFixture[str]) -> None:
    shown, progress = live_view.TerminalView(), StartProgress()
    progress.seed(report(worker(phase="starting", progress="loading [bold]x")))
    with shown.live(progress):
        change = event(1, worker(phase="failed", cause="exit code 1"), NOW, "Traceback [x]")
        progress.take(change)
        shown.change(change)
    text = terminal.readouterr().out
    assert "Traceback [x]" in text
    assert "✘ failed" in text
    assert "\x1b[" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 160])
def test_status_is_readable_at_every_width(width: int) -> None:
    from rich.console import Console

    out = io.StringIO()
    sick = worker("sick-1", "backoff", cause="exited with code 1", restarts=3)
    console = Console(file=out, width=width, markup=False, highlight=False, emoji=False)
    console.print(tables.status(report(worker(), sick), NOW))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    for word in ("sick-1", "backoff", "http://127.0.0.1:21002", "smollm2-1"):
        assert word in text
    assert "exited" in text
    is_table = any("name" in line and "phase" in line for line in lines)
    assert is_table == (width >= 80)


def test_tables_show_our_words_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    out = io.StringIO()
    console = Console(file=out, width=200, markup=False, highlight=False, emoji=False)
    sick = worker("x", "failed", cause="expected [/bold] :smile:", gpus=(GPU.uuid,), vram_bytes=1 << 30)
    console.print(tables.status(report(worker(), sick, gpus=(GPU,)), NOW))
    assert "expected [/bold] :smile:" in out.getvalue()
    assert "NVIDIA L4" in out.getvalue()
