"""What requests cost the keys that have limits."""

from __future__ import annotations

import json

import pytest

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.limits.admission import Admission, charge
from llmlaunch.gateway.limits.api_key import ApiKey, KeyLimits
from llmlaunch.gateway.request import ClientRequest


def request(limits: KeyLimits, size: int = 40) -> ClientRequest:
    made = ClientRequest(b"POST", b"/", b"", True, True, 0.0, b"id")
    made.api_key, made.body = ApiKey("alice", limits, limits), b"x" * size
    return made


def code(reply: Reply | None) -> str:
    return "" if reply is None else json.loads(reply.body)["error"]["code"]


@pytest.mark.parametrize(
    ("answered", "tokens", "counted", "used"),
    [
        (True, (10, 5), 99, 15),  # as the answer told
        (True, None, 7, 17),  # the prompt's estimate and what was counted
        (True, None, 0, 10),
        (False, None, 0, 0),  # nobody worked for it
        (False, (10, 5), 7, 0),
    ],
)
def test_who_is_charged_what(answered: bool, tokens: tuple[int, int] | None, counted: int, used: int) -> None:
    assert charge(10, answered=answered, tokens=tokens, counted=counted) == used


def test_a_file_is_not_taken_for_a_prompt() -> None:
    upload = request(KeyLimits(tpm=100), size=25 << 20)
    upload.boundary = b"xyz"
    assert Admission(lambda key, what: None).admit(upload, "whisper", 0.0) is None
    assert upload.estimate == 0


def test_an_admitted_request_is_put_down_and_settled() -> None:
    limited: list[tuple[str, str]] = []
    admission = Admission(lambda key, what: limited.append((key, what)))
    limits = KeyLimits(concurrency=1, tpm=100)
    first, second = request(limits), request(limits)
    assert admission.admit(first, "m", 0.0) is None
    assert first.estimate == 10
    assert code(admission.admit(second, "m", 0.0)) == "concurrency_limit_exceeded"
    assert limited == [("alice", "concurrency")]
    admission.settle(first, answered=True, tokens=(60, 50), counted=0)
    assert code(admission.admit(second, "m", 0.0)) == "rate_limit_exceeded"
    assert admission.admit(second, "m", 60.0) is None


def test_a_model_that_the_key_may_not_use() -> None:
    admission = Admission(lambda key, what: None)
    asked = request(KeyLimits(models=frozenset({"other"})))
    assert code(admission.admit(asked, "m", 0.0)) == "model_not_allowed"
    assert asked.estimate is None
