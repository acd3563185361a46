"""Thoughts told apart from answers, wherever the text is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.worker.output.reasoning import ReasoningParser, ReasoningSplit, is_unclosed, starts_inside


def read(text: str, cuts: set[int], *, inside: bool = False) -> ReasoningSplit:
    parser = ReasoningParser(inside=inside)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [parser.push(text[a:b]) for a, b in itertools.pairwise(places)]
    pieces.append(parser.flush())
    return ReasoningSplit("".join(p.reasoning for p in pieces), "".join(p.text for p in pieces))


CASES = [
    (
        "<think>\nfirst this\nthen that\n</think>\n\nParis.",
        False,
        ReasoningSplit("first this\nthen that", "Paris."),
    ),
    ("first this</think>Paris.", True, ReasoningSplit("first this", "Paris.")),
    ("\n\n<think>\n\n</think>\n\nParis.", False, ReasoningSplit("", "Paris.")),
    ("Paris <think>is</think> nice.", False, ReasoningSplit("", "Paris <think>is</think> nice.")),
    ("<thin ice", False, ReasoningSplit("", "<thin ice")),
    ("<think>never ends </thin", False, ReasoningSplit("never ends </thin", "")),
    ("<think>ends with lines\n\n", False, ReasoningSplit("ends with lines\n\n", "")),
    ("<think>a</think>b</think>c", False, ReasoningSplit("a", "b</think>c")),
    ("<think>a < b </ think> <think></think>  \n c", False, ReasoningSplit("a < b </ think> <think>", "c")),
    ("", False, ReasoningSplit()),
    ("  ", False, ReasoningSplit("", "  ")),
    ("<think>", False, ReasoningSplit()),
]


@pytest.mark.parametrize(("text", "inside", "expected"), CASES)
def test_every_cut_says_the_same(text: str, inside: bool, expected: ReasoningSplit) -> None:
    assert read(text, set(), inside=inside) == expected
    assert read(text, set(range(len(text))), inside=inside) == expected
    for cut in range(len(text)):
        assert read(text, {cut}, inside=inside) == expected


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "\n", " ", "x"]), max_size=12),
       st.sets(st.integers(0, 60)), st.booleans())  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_text_cut_anywhere_says_the_same(parts: list[str], cuts: set[int], inside: bool) -> None:
    text = "".join(parts)
    assert read(text, cuts, inside=inside) == read(text, set(), inside=inside)


def test_a_prompt_may_open_the_thoughts() -> None:
    assert starts_inside("<|assistant|>\n<think>\n")
    assert not starts_inside("<|assistant|>\n<think>\n\n</think>\n\n")
    assert is_unclosed("<think>so far")
    assert not is_unclosed("<think>so far</think> and")
    assert not is_unclosed("write <think>")
