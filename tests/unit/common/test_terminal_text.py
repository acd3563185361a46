"""Control characters are shown, not sent."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.common.terminal_text import one_line, visible


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("plain, né 日本 🙂\ttab\nline", "plain, né 日本 🙂\ttab\nline"),
        ("\x1b]52;c;cm0gLXJm\x07", "^[]52;c;cm0gLXJm^G"),
        ("\x1b]0;a title\x1b\\", "^[]0;a title^[\\"),
        ("\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
        ("\x9b31m \x9d0;title\x9c", "\\x9b31m \\x9d0;title\\x9c"),
        ("\u0090q", "\\x90q"),
        ("secret\b\b\b\b\b\bpublic", "secret^H^H^H^H^H^Hpublic"),
        ("failed\rfine", "failed^Mfine"),
        ("of Windows\r\n", "of Windows\n"),
        ("\0\x7f\x0b\x0c\x05", "^@^?^K^L^E"),
        ("\u202eevil\u2066\u2028", "\\u202eevil\\u2066\\u2028"),
        ("\udcff\U000e0041", "\\udcff\\U000e0041"),
        ("👩\u200d👩 \u00a0", "👩\u200d👩 \u00a0"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(printed: str, shown: str) -> None:
    assert visible(printed) == shown


@given(st.text(alphabet=st.characters()))
def test_no_control_character_comes_out(text: str) -> None:
    shown = visible(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert visible(shown) == shown
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line
