"""The last route table: used when it is ours and holds, ignored otherwise."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.common import files
from llmlaunch.gateway.routing import route_table
from llmlaunch.gateway.routing.route_table import RoutedReplica, RouteTable
from llmlaunch.gateway.routing.saved_table import AGE_MOST_S, SavedTable, TableOrigin

MARKS = TableOrigin("lab", "run-1", "http://127.0.0.1:21001")
ANSWER = {
    "epoch": "e", "rev": 7, "settled": True, "dispatch": "lottery", "expected": ["a", "b"],
    "replicas": [
        {"worker_name": "http://127.0.0.1:21002/x", "model_names": ["a", "c"], "speed": 2.0, "engine_model": "own",
         "max_concurrency": 6, "engine": "vllm", "kind": "embed", "queue_length": 4, "request_timeout_s": 9.0,
         "max_model_len": 8, "keyed": True},
        {"worker_name": "http://[::1]:21003", "model_names": ["b"], "draining": True},
    ],
}  # fmt: skip


def table(processes: int = 1) -> RouteTable:
    found, complaints = route_table.parse(ANSWER, processes)
    assert not complaints
    return route_table.merge(RouteTable(), found)


def test_every_field_of_a_replica_is_tried_here() -> None:
    default = RoutedReplica("", "", 0, ())
    tried = table().replicas.values()
    for field in fields(RoutedReplica):
        assert any(getattr(replica, field.name) != getattr(default, field.name) for replica in tried), (
            field.name
        )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_is_written_down_is_read_again(tmp_path: Path, processes: int) -> None:
    file = tmp_path / "routes.json"
    kept = SavedTable(file, MARKS)
    assert kept.load(processes) is None
    kept.save(table(processes), processes)
    found = kept.load(processes)
    assert found is not None
    assert found.serving.keys() == {"a", "c"}
    assert (found.epoch, found.rev, found.dispatch, found.expected) == ("e", 7, "lottery", frozenset("ab"))
    now = {key: replace(replica, queue_length=0) for key, replica in table(processes).replicas.items()}
    assert found.replicas == now, "but what was in their queues then"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "origin",
    [
        TableOrigin("other", MARKS.run, MARKS.controller),
        TableOrigin(MARKS.deployment, "run-2", MARKS.controller),
        TableOrigin(MARKS.deployment, MARKS.run, "http://127.0.0.1:9"),
    ],
    ids=["another deployment", "another run", "another controller"],
)
def test_addresses_of_others_are_not_used(tmp_path: Path, origin: TableOrigin) -> None:
    """In another run they may be a stranger's."""
    SavedTable(tmp_path / "r", MARKS).save(table(), 1)
    assert SavedTable(tmp_path / "r", origin).load(1) is None


@pytest.mark.parametrize("seconds", [-AGE_MOST_S - 1, AGE_MOST_S + 1])
def test_a_table_of_another_time_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    kept = SavedTable(tmp_path / "r", MARKS)
    kept.save(table(), 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)
    assert kept.load(1) is None


def _other(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))

    return spoil


def _linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


SPOILED: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "not text": lambda file: file.write_bytes(b"\xff\xfe\0"),
    "deep": lambda file: file.write_bytes(b"[" * 100_000),
    "huge": lambda file: file.write_bytes(b" " * (files.MOST_BYTES + 1)),
    "a list": lambda file: file.write_bytes(b"[]"),
    "another version": _other(lambda data: data.update(version=2)),
    "no routes": _other(lambda data: data.pop("routes")),
    "routes of another kind": _other(lambda data: data.update(routes=[1])),
    "no time": _other(lambda data: data.update(saved_at="now")),
    "a link": _linked,
    "a pipe": _piped,
    "a folder": _folder,
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_file_that_somebody_spoiled_is_ignored(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    file = tmp_path / "routes.json"
    kept = SavedTable(file, MARKS)
    kept.save(table(), 1)
    assert kept.load(1) is not None
    spoil(file)
    assert kept.load(1) is None


def test_a_folder_that_takes_no_file_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = SavedTable(tmp_path / "gone" / "routes.json", MARKS)
    for _ in range(3):
        kept.save(table(), 1)
    assert caplog.text.count("cannot save the routes") == 1
