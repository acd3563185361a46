"""Text on its way out: whole characters, no piece of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.worker.output.stops import MAX_INCOMPLETE_TOKENS, Detokenizer, StopStringFilter


def bytes_decoder(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


def sentencepiece_decoder(tokens: Sequence[int]) -> str:
    """Tokens are words; the first one's blank is dropped, as sentencepiece does."""
    return " ".join(f"w{token}" for token in tokens)


@given(st.text(max_size=40))
def test_text_comes_out_whole_and_never_half_a_character(text: str) -> None:
    detokenizer = Detokenizer(bytes_decoder)
    pieces = [detokenizer.push(byte) for byte in text.encode()]
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text
    assert "".join(pieces) + detokenizer.flush() == text


@given(st.lists(st.integers(0, 255), max_size=60))
def test_any_bytes_come_out_as_the_decoder_has_them(tokens: list[int]) -> None:
    detokenizer = Detokenizer(bytes_decoder)
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    assert text == bytes_decoder(tokens)


@given(st.lists(st.integers(0, 9), max_size=200))
def test_blanks_between_words_survive_however_long_the_text(tokens: list[int]) -> None:
    detokenizer = Detokenizer(sentencepiece_decoder)
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    assert text == sentencepiece_decoder(tokens)


def test_hopeless_bytes_are_not_held_back_for_ever() -> None:
    detokenizer = Detokenizer(bytes_decoder)
    shown = "".join(detokenizer.push(0x80) for _ in range(4 * MAX_INCOMPLETE_TOKENS))
    assert len(shown) >= 3 * MAX_INCOMPLETE_TOKENS


@given(
    st.text(alphabet="ab", max_size=40),
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    holder = StopStringFilter(stops)
    shown, rest = "", text
    while rest and holder.matched is None:
        size = data.draw(st.integers(1, len(rest)))
        shown += holder.push(rest[:size])
        assert not any(stop in shown for stop in stops)
        rest = rest[size:]
    if holder.matched is None:
        shown += holder.flush_after("")
        assert shown == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(shown + holder.matched)
        assert not any(stop in shown for stop in stops)


def test_only_a_doubtful_end_is_held_back() -> None:
    holder = StopStringFilter(["\n\nUser:"])
    assert holder.push("Hello\n") == "Hello"
    assert holder.push("\nWorld") == "\n\nWorld"
    assert holder.push("!\n\nUser") == "!"
    assert holder.push(": x") == ""
    assert holder.matched == "\n\nUser:"


def test_the_stop_string_stays_when_asked_for() -> None:
    holder = StopStringFilter(["END"], include=True)
    assert holder.push("the END is near") == "the END"
