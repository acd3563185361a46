"""Tokens: what each lets its bearer do, and that nobody makes one without the secret."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.controller.tokens import (
    OWNER,
    Role,
    TokenScope,
    gateway_token,
    key_seed,
    replica_token,
    scope_of,
    worker_key,
)

SECRET = "the-secret-of-a-deployment"
A = "http://127.0.0.1:21002"
TEXT = st.text(max_size=20)


def test_who_shows_the_secret_itself_may_everything() -> None:
    assert scope_of(SECRET, SECRET) == OWNER


def test_a_token_tells_its_grant() -> None:
    assert scope_of(SECRET, gateway_token(SECRET)) == TokenScope(Role.GATEWAY)
    assert scope_of(SECRET, replica_token(SECRET, A, ["m", "n"])) == TokenScope(Role.REPLICA, A, ("m", "n"))


@given(TEXT, st.lists(TEXT))
def test_any_address_and_names_survive(address: str, names: list[str]) -> None:
    token = replica_token(SECRET, address, names)
    assert scope_of(SECRET, token) == TokenScope(Role.REPLICA, address, tuple(names))
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token


def test_tokens_of_another_deployment_grant_nothing() -> None:
    for token in ("other", gateway_token("other"), replica_token("other", A, ["m"])):
        assert scope_of(SECRET, token) is None


@pytest.mark.parametrize("said", [{"role": "owner"}, {"role": "replica", "address": A, "names": ["m", "n"]}])
def test_a_grant_cannot_be_widened(said: dict[str, object]) -> None:
    _, _, seal = replica_token(SECRET, A, ["m"]).partition(".")
    body = (
        base64.urlsafe_b64encode(json.dumps({"address": "", "names": [], **said}).encode())
        .decode()
        .rstrip("=")
    )
    assert scope_of(SECRET, f"{body}.{seal}") is None


@given(st.data())
def test_one_changed_character_is_enough(data: st.DataObject) -> None:
    token = replica_token(SECRET, A, ["m"])
    at = data.draw(st.integers(0, len(token) - 2))  # of the last character some bits are padding
    other = data.draw(st.characters(max_codepoint=126, min_codepoint=33).filter(lambda c: c != token[at]))
    assert scope_of(SECRET, token[:at] + other + token[at + 1 :]) is None


def test_every_worker_has_a_key_of_its_own_that_opens_nothing_else() -> None:
    seed = key_seed(SECRET)
    keys = [worker_key(seed, f"http://127.0.0.1:{port}") for port in range(21002, 21102)]
    assert len({*keys, seed, SECRET}) == 102
    assert all(scope_of(SECRET, key) is None for key in (*keys, seed))
    assert worker_key(key_seed("other"), A) not in keys


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A, A + "/"),
        ("http://Box:1", "http://box:1"),
        ("http://[fe80::1%25eth0]:1", "http://[fe80::1%eth0]:1"),
    ],
)
def test_a_key_is_the_same_however_its_address_is_spelt(one: str, other: str) -> None:
    assert worker_key("seed", one) == worker_key("seed", other)


@given(st.text())
def test_nonsense_grants_nothing(shown: str) -> None:
    assert scope_of(SECRET, shown) is None


@pytest.mark.parametrize("shown", ["", ".", "a.", ".b", "é.ü", "x" * 100_000])
def test_what_is_no_token_grants_nothing(shown: str) -> None:
    assert scope_of(SECRET, shown) is None
