"""Conversions are made once, whole, and again only when the file changed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.loading import convert
from llmlaunch.worker.loading.types import ReportProgress
from tests.support.waiting import wait_until


def quiet(done: int, total: int, text: str) -> None:
    pass


@pytest.fixture
def file(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMLAUNCH_CACHE", str(home / "cache"))
    path = home / "model.gguf"
    path.write_bytes(b"GGUF....")
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for the work itself; the end-to-end tests do it for real."""
    made: list[Path] = []

    def work(file: Path, folder: Path, progress: ReportProgress) -> None:
        (folder / "config.json").write_text("{}")
        made.append(file)

    monkeypatch.setattr(convert, "_convert", work)
    return made


def test_once_and_then_never_again(file: Path, conversions: list[Path]) -> None:
    first = convert.to_safetensors(file, quiet)
    assert (first / "config.json").exists()
    assert convert.to_safetensors(file, quiet) == first
    assert conversions == [file]
    assert [path.name for path in first.parent.iterdir() if path.is_dir()] == [first.name]


def test_a_file_that_changed_is_converted_anew(file: Path, conversions: list[Path]) -> None:
    first = convert.to_safetensors(file, quiet)
    file.write_bytes(b"GGUF.........")
    assert convert.to_safetensors(file, quiet) != first
    assert len(conversions) == 2


def test_a_second_worker_waits_for_the_first(
    file: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, check_abandoned = threading.Event(), threading.Event()
    work = convert._convert

    def slow(file: Path, folder: Path, progress: ReportProgress) -> None:
        began.set()
        assert check_abandoned.wait(30)
        work(file, folder, progress)

    monkeypatch.setattr(convert, "_convert", slow)
    said: list[str] = []
    threads = [
        threading.Thread(
            target=convert.to_safetensors, args=(file, lambda done, total, text: said.append(text))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert began.wait(30)
    wait_until(lambda: len(said) == 2, 30, "two wait")
    check_abandoned.set()
    for thread in threads:
        thread.join(30)
    assert len(conversions) == 1
    assert set(said) == {"waiting for another worker to convert the file"}


def test_what_failed_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path, folder: Path, progress: ReportProgress) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    monkeypatch.setattr(convert, "_convert", fail)
    with pytest.raises(OSError, match="disk full"):
        convert.to_safetensors(file, quiet)
    assert not [path for path in convert.converted_folder(file).parent.iterdir() if path.is_dir()]


def test_what_is_no_gguf_is_refused(home: Path) -> None:
    path = home / "x.gguf"
    path.write_bytes(b"PK\3\4")
    with pytest.raises(StartupError, match="not a GGUF file"):
        convert._convert(path, home, quiet)
