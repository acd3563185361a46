"""Which line of a log says why a program ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.supervision.logs.causes import find_cause, last_line
from tests.unit.supervision.logs.failed_logs import FAILED, NOISE, RECORDED

FOLDER = Path(__file__).parents[3] / "data" / "engine_logs"
HEALTHY = ("vllm-healthy-start", "llamacpp-healthy-start")


def recorded(name: str) -> list[str]:
    return (FOLDER / f"{name}.log").read_text().split("\n")


def cause(rows: list[str]) -> str:
    found = find_cause(rows)
    return found.text if found else ""


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_line_that_a_person_wants(name: str) -> None:
    assert cause(recorded(name)) == RECORDED[name]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_log_has_no_cause(name: str) -> None:
    assert find_cause(recorded(name)) is None


@pytest.mark.parametrize("name", sorted(FAILED))
def test_the_first_line_that_says_an_error(name: str) -> None:
    wanted, log = FAILED[name]
    assert wanted in cause(log.split("\n"))


LOGS = [recorded(name) for name in RECORDED] + [log.strip("\n").split("\n") for _, log in FAILED.values()]


@given(st.sampled_from(LOGS), st.lists(st.sampled_from(NOISE)), st.lists(st.sampled_from(NOISE)))
def test_noise_before_and_after_changes_nothing(log: list[str], before: list[str], after: list[str]) -> None:
    assert cause([*before, *log, *after]) == cause(log)


@given(st.lists(st.sampled_from(NOISE)))
def test_noise_alone_says_nothing(rows: list[str]) -> None:
    assert find_cause(rows) is None


@given(st.lists(st.text(max_size=80) | st.sampled_from([row for log in LOGS for row in log]), max_size=40))
def test_any_text_can_be_read(rows: list[str]) -> None:
    found = find_cause(rows)
    if found:
        assert 0 <= found.row < len(rows)
        assert 0 < len(found.text) <= 300
        assert "\n" not in found.text
    last_line(rows)


def test_an_error_that_was_survived_is_not_the_cause() -> None:
    survived = [
        "ValueError: a request was wrong",
        'INFO:     127.0.0.1:1 - "POST /v1/completions HTTP/1.1" 200 OK',
    ]
    assert find_cause(survived) is None
    assert cause([*survived, "RuntimeError: CUDA error: an illegal memory access"]).startswith("RuntimeError")


def test_links_below_a_message_and_boilerplate_within_are_left_out() -> None:
    for _, log in FAILED.values():
        assert "pytorch.org" not in cause(log.split("\n"))
        assert "errors.pydantic.dev" not in cause(log.split("\n"))


def test_colours_do_not_hide_an_error() -> None:
    assert cause(["\x1b[31mERROR\x1b[0m 11-26 19:04:36 [a.py:1] no such model"]) == "no such model"


def test_the_last_line_is_the_last_one_that_says_anything() -> None:
    assert last_line(["serving", *(row for row in NOISE if "(APIServer" not in row)]) == "serving"
    assert last_line(["serving", "GET /alive 200"], ("/alive",)) == "serving"
    assert last_line(["GET /health 200"]) == ""
