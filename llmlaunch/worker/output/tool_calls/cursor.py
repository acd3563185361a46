"""A position in text that is still growing. Searches go on where they stopped, so that long arguments cost linear time. Pure."""

from __future__ import annotations

BLANKS = " \t\r\n"


class BracketEnd:
    """Finds the end of one bracketed or quoted value in streamed text. ``quotes``: the characters that quote strings."""

    def __init__(self, quotes: str = '"', *, depth: int = 0) -> None:
        self._quotes = quotes
        self._depth = depth
        self._quote = ""
        self._escaped = False

    def find(self, text: str, start: int = 0) -> int | None:
        """Index in ``text`` after the end of the value; None if it goes on after ``text``."""
        for at in range(start, len(text)):
            letter = text[at]
            if self._escaped:
                self._escaped = False
            elif self._quote:
                self._escaped = letter == "\\"
                if letter == self._quote:
                    self._quote = ""
            elif letter in "{[(":
                self._depth += 1
            elif letter in "}])":
                self._depth -= 1
            elif letter in self._quotes:
                self._quote = letter
            if self._depth <= 0 and not self._quote and not letter.isspace():
                return at + 1
        return None


class Cursor:
    """The text after a position. ``final``: no more text follows."""

    def __init__(self) -> None:
        self.rest = ""
        self.final = False
        self._searched: dict[str, int] = {}
        self._brackets: dict[tuple[int, str], tuple[BracketEnd, int, int | None]] = {}

    def push(self, text: str) -> None:
        """Add ``text`` at the end."""
        self.rest += text

    def take(self, size: int | None = None) -> str:
        """Move on by ``size`` characters, or to the end; the text passed over."""
        taken = self.rest if size is None else self.rest[:size]
        self.rest = self.rest[len(taken) :]
        self._searched.clear()
        self._brackets.clear()
        return taken

    def blank(self, blanks: str = BLANKS) -> int:
        """Number of blank characters at the position."""
        return len(self.rest) - len(self.rest.lstrip(blanks))

    def starts(self, mark: str, at: int = 0) -> bool:
        """Whether ``mark`` stands ``at`` characters after the position."""
        return self.rest.startswith(mark, at)

    def may_start(self, mark: str, at: int = 0) -> bool:
        """Whether ``mark`` may still come to stand there, or stands there."""
        tail = self.rest[at : at + len(mark)]
        return tail == mark or (not self.final and mark.startswith(tail) and at + len(tail) == len(self.rest))

    def find(self, mark: str) -> int:
        """Index of the first ``mark``; -1 if there is none yet."""
        start = max(0, self._searched.get(mark, 0) - len(mark))
        found = self.rest.find(mark, start)
        self._searched[mark] = len(self.rest)
        return found

    def value_end(self, start: int, quotes: str = '"') -> int | None:
        """Index after the bracketed value at ``start``; None if it is incomplete."""
        key = (start, quotes)
        finder, seen, end = self._brackets.get(key) or (BracketEnd(quotes), start, None)
        if end is None:
            end = finder.find(self.rest, seen)
            self._brackets[key] = (finder, len(self.rest), end)
        return end
