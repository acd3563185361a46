"""What shows that a start goes on."""

from __future__ import annotations

import os
from pathlib import Path

from llmlaunch.engines import progress
from llmlaunch.supervision.health.start_progress import MovedBytes, ProgressLines
from llmlaunch.supervision.processes.procs import moved_bytes


def append(log: Path, data: bytes) -> None:
    with log.open("ab") as more:
        more.write(data)


def test_log_lines_that_show_progress(tmp_path: Path) -> None:
    log = tmp_path / "log"
    signs = ProgressLines(log, (r"shard \d", "(broken"))
    assert signs.newest() == ""
    log.write_bytes(b"hello\n(W pid=7) INFO 11-26 18:52:36 [a.py:1] SHARD 1\nother\n")
    assert signs.newest() == "SHARD 1"
    assert signs.newest() == "", "nothing new"
    append(log, b"shard 2\r  shard 3\r")
    assert signs.newest() == "shard 3"


def test_a_bar_that_is_only_drawn_again_shows_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    signs = ProgressLines(log, progress.VLLM)
    log.write_bytes(b"Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:04<00:04,  4.34s/it]\n")
    assert signs.newest() == "Loading safetensors checkpoint shards: 50% (1/2)"
    append(log, b"Loading safetensors checkpoint shards:  50% Completed | 1/2 [05:00<05:00, 300s/it]\n")
    assert signs.newest() == ""
    append(log, b"Loading safetensors checkpoint shards: 100% Completed | 2/2 [05:01<00:00, 4.3s/it]\n")
    assert signs.newest() == "Loading safetensors checkpoint shards: 100% (2/2)"


def test_of_an_unknown_server_any_line_counts_but_probes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    signs = ProgressLines(log, progress.ANY_LINE, ("/alive", ""))
    log.write_bytes(b"still waiting for the moon\n")
    assert signs.newest() == "still waiting for the moon"
    append(log, b'INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 503 -\nGET /alive 503\n\n')
    assert signs.newest() == ""
    append(log, b"still waiting for the moon\n")
    assert signs.newest() == "still waiting for the moon"


def test_bytes_that_are_moved_count_a_mebibyte_at_a_time() -> None:
    counts = iter([5 << 20, (5 << 20) + 1000, (6 << 20) - 1, 6 << 20, 6 << 20, 1 << 20, 3 << 20])
    moved = MovedBytes(lambda: next(counts))
    told = [moved.newest() for _ in range(7)]
    assert told == ["", "", "", "6 MiB read and written so far", "", "", "3 MiB read and written so far"]


def test_what_a_tree_reads_and_writes(tmp_path: Path) -> None:
    before = moved_bytes(os.getpid())
    (tmp_path / "file").write_bytes(bytes(2 << 20))
    (tmp_path / "file").read_bytes()
    assert moved_bytes(os.getpid()) - before >= 4 << 20
    assert moved_bytes(0x7FFFFFF) == 0, "it has gone meanwhile"
