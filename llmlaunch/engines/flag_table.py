"""The flags that an engine knows, and how a name in a manifest finds one of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from llmlaunch.engines import units

_KEY = re.compile(
    r"(?P<dashes>-{0,2})(?P<name>[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*)(?P<rest>(?:\.[A-Za-z0-9][\w.-]*\+?)?)"
)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag in all its spellings, dashes included."""

    names: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    """Spellings that switch it off."""
    kind: str = ""
    """What follows it: nothing (a switch), int, count, float, number, text, json, or the words for yes and no as ``on|off``."""
    several: str = ""
    """``*``: any number of values; ``2``: two; ``?``: perhaps one; empty: just one."""

    @property
    def name(self) -> str:
        """The spelling to show: the first long one."""
        return next((name for name in self.names if name.startswith("--")), self.names[0])

    def full(self, spelling: str) -> str:
        """``spelling``, which may be an abbreviation, in full."""
        every = (*self.names, *self.negatives)
        return spelling if spelling in every else next((n for n in every if n.startswith(spelling)), spelling)

    def opposite(self, spelling: str) -> str:
        """The spelling that says the contrary of ``spelling``; empty: there is none."""
        if spelling in self.names:
            return next((name for name in self.negatives if name.startswith("--")), "")
        return self.name

    def is_called(self, *names: str) -> bool:
        """Whether one of ``names``, without dashes, is one of its spellings."""
        return any(spelling.lstrip("-") in names for spelling in self.names)


@dataclass(frozen=True, slots=True)
class Match:
    """What a name in a manifest stands for."""

    spelling: str
    """As it goes on the command line; empty: the name cannot be a flag."""
    flag: Flag | None = None
    """None: the table has no such flag."""
    whole: bool = True
    """False: it sets one key inside of a flag's JSON, as in ``--compilation-config.mode``."""
    candidates: tuple[Flag, ...] = ()
    """Several flags that begin so."""


@dataclass(frozen=True, slots=True)
class FlagTable:
    """The flags of one engine. ``text`` has one a line, as tests/support/record_engine_flags.py writes them."""

    version: str
    """Of the program whose flags these are, with its name."""
    text: str = ""
    abbreviates: bool = False
    """Whether the program takes the beginning of a long flag for the flag, as argparse does."""
    joined: bool = True
    """Text that starts with a dash is written ``--flag=-text``, or argparse would take it for another flag."""
    commas: bool = False
    """Several values for a flag that takes one are joined by commas."""
    count: Callable[[str], int] = units.plain
    """Reads the values of ``count`` flags. Raises ValueError."""

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All of them."""
        return tuple(dict.fromkeys(_spellings(self.text).values()))

    def find(self, key: str) -> Match:
        """The flag that ``key`` means: ``max_model_len``, ``--max-model-len``, ``-dcp``, ``hf_overrides.x``."""
        match = _KEY.fullmatch(key)
        if match is None:
            return Match("")
        known = _spellings(self.text)
        dashes, name, rest = match["dashes"], match["name"].replace("_", "-"), match["rest"]
        spellings = [dashes + name] if dashes else [f"--{name}", f"-{name}"]
        for spelling in spellings:
            if flag := known.get(whole := spelling + rest.replace("_", "-")):
                return Match(whole, flag)
        for spelling in spellings if rest else ():
            if flag := known.get(spelling):
                return Match(spelling + rest, flag, whole=False)
        written = spellings[0] if dashes or len(name) > 1 else f"-{name}"
        begun = (flag for spelling, flag in known.items() if spelling.startswith(written))
        found = tuple(dict.fromkeys(begun)) if self.abbreviates and not rest else ()
        return Match(written + rest, found[0] if len(found) == 1 else None, candidates=found)

    def value(self, args: Mapping[str, Any], *names: str) -> Any:
        """The value given in ``args`` for the flag with one of these names (without dashes), or None.

        ``no_x: true`` means that x is false.
        """
        for key, value in args.items():
            match = self.find(str(key))
            flag = match.flag
            if match.whole and (
                flag.is_called(*names) if flag else bool(names) and match.spelling.lstrip("-") in names
            ):
                negated = flag is not None and flag.full(match.spelling) in flag.negatives
                return not value if negated and isinstance(value, bool) else value
        return None

    def mentions(self, args: Mapping[str, Any], *names: str) -> bool:
        """Whether ``args`` say anything about that flag, and be it null, which leaves it out."""
        found = (self.find(str(key)) for key in args)
        return any(m.flag.is_called(*names) if m.flag else m.spelling.lstrip("-") in names for m in found)

    def integer(self, args: Mapping[str, Any], *names: str) -> int | None:
        """The same as the integer that the engine reads; None also when it reads none."""
        return self.read(self.value(args, *names))

    def number(self, args: Mapping[str, Any], *names: str) -> float | None:
        """The same for a flag that takes a fraction."""
        value = self.value(args, *names)
        try:
            return (
                float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
            )
        except ValueError:
            return None

    def read(self, value: Any) -> int | None:
        """``value`` as the integer that the engine's ``count`` flags read; None: it is not one."""
        if isinstance(value, str):
            try:
                return self.count(value)
            except ValueError:
                return None
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@cache
def _spellings(text: str) -> Mapping[str, Flag]:
    found: dict[str, Flag] = {}
    for line in text.split("\n"):
        names, negatives, kind = [], [], ""
        for word in line.split():
            if word.startswith("="):
                kind = word[1:]
            elif word.startswith("!"):
                negatives.append(word[1:])
            else:
                names.append(word)
        plain = kind.rstrip("*2?")
        flag = Flag(tuple(names), tuple(negatives), plain, kind[len(plain) :])
        found |= dict.fromkeys((*names, *negatives), flag)
    return found
