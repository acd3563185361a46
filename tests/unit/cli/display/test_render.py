from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.cli.display import render
from llmlaunch.common.terminal_text import visible
from llmlaunch.control.types import LastFailure
from tests.unit.cli.values import API, GPU, NOW, report, worker


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1 << 20, "1.0 MiB"),
        (15 << 20, "15 MiB"),
        (120 << 20, "120 MiB"),
        (1023 << 20, "1023 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (16_000_000_000, "14.9 GiB"),
        (80 << 30, "80.0 GiB"),
        (141 << 30, "141 GiB"),
        (1 << 43, "8.0 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert render.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (8.9, "8s"), (123, "2m 03s"), (3600, "1h 00m"), (19_200, "5h 20m"), (273_600, "3d 4h")],
)
def test_age(seconds: float, text: str) -> None:
    assert render.age(seconds) == text


@given(st.integers(0, 1 << 60))
def test_size_is_within_rounding(count: int) -> None:
    number, unit = render.size(count).split()
    scale = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[unit]
    assert abs(float(number) * scale - count) <= 0.051 * count


def test_columns_line_up() -> None:
    lines = render.columns([("A", "B"), ("long", "x y"), ("s", "")])
    assert lines == ["A     B", "long  x y", "s"]


def test_status_in_a_pipe_names_what_matters() -> None:
    sick = worker(
        "smollm2-2", "failed", cause="exit code 1\nOutOfMemoryError", gpus=(GPU.uuid,), vram_bytes=3 << 30
    )
    lines = render.status_lines(report(API, worker(), sick, gpus=(GPU,)), NOW)
    assert lines[0] == "lab: up 2m 10s, 2 of 3 components ready (supervisor 4700)"
    assert lines[1] == "endpoint: http://127.0.0.1:8000/v1"
    failed = next(line for line in lines if line.startswith("smollm2-2"))
    assert failed.split() == [
        "smollm2-2", "failed", "4711", "http://127.0.0.1:21002", "0", "3.0", "GiB", "0", "2m", "05s",
        "exit", "code", "1", "OutOfMemoryError;", "`llmlaunch", "restart", "smollm2-2`", "tries", "again",
    ]  # fmt: skip
    assert "NVIDIA L4" in lines[-1]
    assert "24.0 GiB" in lines[-1]


def test_devices() -> None:
    assert render.devices(API, ()) == "-"
    assert render.devices(worker(), (GPU,)) == "cpu"
    assert render.devices(worker(gpus=(GPU.uuid,)), (GPU,)) == "0"
    assert render.devices(worker(gpus=("MIG-12345678-9abc",)), (GPU,)) == "MIG-12345678"
    part = replace(GPU, index=1, uuid="MIG-12345678-9abc")
    assert (
        render.devices(worker(gpus=(part.uuid,)), (GPU, part)) == render.gpu_row(part)[0] == "1 MIG-12345678"
    )


def test_a_stopping_deployment_says_so() -> None:
    assert "going down" in render.headline(report(stopping=True), NOW)


@given(st.text())
def test_a_cause_never_breaks_the_line_or_the_terminal(text: str) -> None:
    line = render.change_line(worker(phase="failed", cause=text))
    assert line.isprintable()


def test_when_it_is_tried_again() -> None:
    down = worker(phase="failed", cause="port 80 is taken", since=NOW - 10, next_try=NOW + 50)
    assert render.status_reason(down, NOW) == "port 80 is taken; next try in 50s"
    assert render.status_reason(down, NOW + 55) == "port 80 is taken; next try now"
    assert render.change_line(down) == "smollm2-1: failed: port 80 is taken; next try in 1m 00s"
    assert render.why(replace(down, phase="backoff"), NOW) == "port 80 is taken; next try in 50s"
    assert render.why(replace(down, phase="backoff", next_try=None), NOW) == "port 80 is taken"
    assert (
        render.why(replace(down, next_try=None), NOW)
        == "port 80 is taken; `llmlaunch restart smollm2-1` tries again"
    )
    assert render.why(replace(down, phase="pending"), NOW) == "port 80 is taken"


def test_what_ailed_one_that_is_well_again() -> None:
    last = LastFailure(
        NOW - 180, 1, "exit", "was killed by SIGKILL;\nits last line: \x1b[31m", signal="SIGKILL"
    )
    assert (
        render.status_reason(worker(last=last), NOW)
        == "3m 00s ago: was killed by SIGKILL; its last line: ^[[31m"
    )
    assert render.status_reason(worker(note="runs slowly", last=last), NOW).startswith(
        "runs slowly; 3m 00s ago: was killed"
    )
    assert render.change_line(worker(last=last)) == "smollm2-1: ready", "that it is ready is the news"
    down = worker(phase="failed", cause="exited with code 1", last=last)
    assert "SIGKILL" not in render.status_reason(down, NOW), "the cause says what is the matter now"


def test_progress_is_told_while_starting_and_the_cause_otherwise() -> None:
    again = worker(phase="starting", cause="exited with code 2 while starting")
    assert (
        render.change_line(again) == "smollm2-1: starting: the last time: exited with code 2 while starting"
    )
    loading = worker(phase="starting", progress="loading weights 120 of 260 MiB", cause="start 2")
    assert render.change_line(loading) == "smollm2-1: starting: loading weights 120 of 260 MiB"
    assert render.change_line(worker()) == "smollm2-1: ready"
    assert render.change_line(worker(note="runs slowly")) == "smollm2-1: ready: runs slowly"
    assert render.change_line(worker(note="runs slowly", cause="unhealthy")) == "smollm2-1: ready: unhealthy"


@given(st.text(min_size=1), st.booleans())
def test_the_curl_line_survives_the_shell(model: str, embedding: bool) -> None:
    if "\0" in model:
        return
    command = "\n".join(render.curl("http://127.0.0.1:8000", model, embedding=embedding, key="KEY"))
    words = shlex.split(command)
    assert words[1] == "http://127.0.0.1:8000/v1/" + ("embeddings" if embedding else "chat/completions")
    assert "Authorization: Bearer $KEY" in words
    assert json.loads(words[-1])["model"] == model


@given(st.text())
def test_what_a_model_says_cannot_take_over_the_terminal(text: str) -> None:
    shown = visible(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F for c in shown)
    assert visible(shown) == shown
    assert visible("né 日本\u200d🙂\n\tx") == "né 日本\u200d🙂\n\tx"


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_endpoint_is_the_base_that_clients_take(url: str) -> None:
    assert render.endpoint(url) == "http://h:1/v1"


def test_gpus_without_memory_of_their_own_or_without_figures() -> None:
    assert render.gpu_row(replace(GPU, memory="main"))[1] == "NVIDIA L4 (main memory)"
    assert render.gpu_row(replace(GPU, memory="unknown"))[1:5] == (
        "NVIDIA L4: memory unknown",
        "-",
        "-",
        "-",
    )
