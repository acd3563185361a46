"""Finds where a JSON value ends in text that arrives in parts. Pure."""

from __future__ import annotations


class JsonValueEnd:
    """Finds the end of one object, array or string."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """Return the index in ``text`` just past the end of the value; None if the value goes on."""
        for at, letter in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = letter == "\\"
                self._in_string = letter != '"'
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
            else:
                self._in_string = letter == '"'
            if self._depth <= 0 and not self._in_string and not letter.isspace():
                return at + 1
        return None
