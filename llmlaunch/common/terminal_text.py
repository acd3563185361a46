"""Text from others, made safe for a terminal: control characters are shown instead of sent.

A terminal obeys what is printed on it: it sets titles and the clipboard (OSC), overwrites lines that were printed before (carriage
return, backspace, cursor movements) and answers questions into the next command line. Engines print what clients sent them, so
none of that may reach the terminal of whoever reads a log.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, delete, C1
    "\u202a-\u202e\u2066-\u2069"  # change the direction of what follows
    "\u2028\u2029\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"  # separators, annotations, bytes that are no text, tags
)


def visible(text: str) -> str:
    r"""``text`` with its control characters in print: ``^[`` for escape, ``\x9b`` for C1, ``\u202e`` for bidirectional overrides.

    Tabs and line feeds stay, and so do the line ends of Windows, as line feeds.
    """
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(_shown, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """``text`` on one line: every run of white space is one space, and all that cannot be seen is shown as a code."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else _code(c) for c in line)


def _shown(match: re.Match[str]) -> str:
    return _code(match[0])


def _code(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"^{chr(code ^ 0x40)}"  # as terminals echo them: ^A is 1, ^? is 127
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
