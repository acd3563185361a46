"""engine_args become an engine's own flags, and what the plan owns is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.engines.flags import flag_name, invalid_flags, lookup, positive, repeated, to_flags


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_model_len": 8192}, ["--max-model-len", "8192"]),
        ({"--max-model-len": "8k"}, ["--max-model-len", "8k"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce_eager": False, "seed": None}, []),
        ({"lora_modules": ["a=/x", "b=/y"]}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"hf_overrides": {"a": [1, None]}}, ["--hf-overrides", '{"a": [1, null]}']),
        ({"mixed": [1, True, {"a": "é"}]}, ["--mixed", "1", "true", '{"a": "é"}']),
        ({"c": 4096}, ["-c", "4096"]),
        ({"ngl": 20}, ["-ngl", "20"]),
        ({"temp": 0.5, "seed": -1}, ["--temp", "0.5", "--seed", "-1"]),
        ({"text": "-dash"}, ["--text=-dash"]),
        ({"text": "two words; $(x)"}, ["--text", "two words; $(x)"]),
        ({"b": 1, "a": 2}, ["-b", "1", "-a", "2"]),
    ],
)
def test_flags(args: dict[str, Any], words: list[str]) -> None:
    assert list(to_flags(args, short=frozenset({"ngl"}))) == words


def test_text_with_a_dash_stays_apart_for_parsers_that_do_not_know_the_equals_sign() -> None:
    assert to_flags({"text": "-dash"}, joined=False) == ("--text", "-dash")


@pytest.mark.parametrize("key", ["", "-", "---a", "a b", "a=b", "1x", "-x-", "a--b", "a;b", "é"])
def test_what_is_no_flag(key: str) -> None:
    assert flag_name(key) == ""
    assert list(invalid_flags({key: 1}, {})) == [
        f"engine_args: {key!r} is not a valid flag; expected a name like max_model_len"
    ]


@given(st.text())
def test_a_flag_name_is_never_more_than_one_plain_word(key: str) -> None:
    name = flag_name(key)
    assert not name or (name[0].isalpha() and name.isascii() and "=" not in name and " " not in name)


def test_owned_keys_are_refused_in_every_spelling() -> None:
    owned = {"port": "write port: on the model"}
    for key in ("port", "--port", "-port"):
        assert list(invalid_flags({key: 1}, owned)) == [
            f"engine_args: {key} is set by the plan; write port: on the model"
        ]
    assert list(invalid_flags({"portable": 1}, owned)) == []


def test_one_flag_in_two_spellings_is_refused() -> None:
    assert list(invalid_flags({"max_len": 1, "max-len": 2}, {})) == [
        "engine_args: max_len and max-len are the same flag"
    ]


def test_a_value_said_twice_and_values_that_are_no_count() -> None:
    assert list(repeated({"max_num_seqs": 4}, {"max-num-seqs": 8})) == [
        "engine_args: max_num_seqs is given twice; remove one of the two"
    ]
    assert list(repeated({"max_num_seqs": 4}, {"max-num-seqs": None})) == []
    assert list(positive({"a": 0, "b": True, "c": "8", "d": 2}, "a", "b", "c", "d")) == [
        "engine_args: a is 0, expected an integer above 0",
        "engine_args: b is True, expected an integer above 0",
        "engine_args: c is '8', expected an integer above 0",
    ]


def test_lookup() -> None:
    assert lookup({"max_model_len": 7}, "max-model-len") == 7
    assert lookup({"max_model_len": 7}, "other") is None
