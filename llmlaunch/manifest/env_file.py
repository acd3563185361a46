r"""Files of environment variables, as Docker Compose and python-dotenv read them. Pure.

===================  =========================================================================
``NAME=value``       blanks around the name and the value go; ``export`` before it, too
``NAME=a # note``    ``#`` after a blank starts a comment, and so does one at the start of a line
``NAME='a # $b'``    between single quotes everything is itself, over several lines if need be
``NAME="a\nb"``       between double quotes ``\n``, ``\r``, ``\t``, ``\"``, ``\\`` and ``\$`` mean one character
``NAME=``            an empty value
===================  =========================================================================

Of two lines with one name the later counts. ``$`` is a dollar sign, but ``${NAME}`` outside of single quotes is refused: others
would fill it in. A value is never part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmlaunch.errors import Problem

_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([^=\s#'\"]*)[ \t]*")
_VALID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"[^\n]*")
_REST = re.compile(r"[ \t]*(?:#[^\n]*)?(?=\n|$)")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_REFERENCE = re.compile(r"(?<!\\)\$\{")


class _Mistake(Exception):
    """What is wrong, and what was expected instead."""


def parse(raw: bytes, file: str) -> tuple[dict[str, str], list[Problem]]:
    """The variables of a file, and every mistake in it at its line."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return {}, [Problem(file, line, 1, "the file is not UTF-8 text")]
    text = text.replace("\r\n", "\n")
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for at, end in _entries(text):
        line = text.count("\n", 0, at) + 1
        try:
            name, value = _variable(text, at, end)
        except _Mistake as error:
            message, expected = error.args
            problems.append(Problem(file, line, 1, message, expected))
        else:
            found[name] = value
    return found, problems


def _entries(text: str) -> Iterator[tuple[int, int]]:
    """Where each variable begins and ends; a value in quotes may go on over several lines."""
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].strip()
        if line and not line.startswith("#"):
            quoted = _quoted(text, at, end)
            if quoted and quoted.end() > end:
                end = text.find("\n", quoted.end())
                end = len(text) if end < 0 else end
            yield at, end
        at = end + 1


def _value_at(text: str, at: int, end: int) -> int:
    """Where the value begins that belongs to the name at ``at``; -1 without an equals sign."""
    equals = text.find("=", at, end)
    if equals < 0:
        return -1
    start = equals + 1
    while start < end and text[start] in " \t":
        start += 1
    return start


def _quoted(text: str, at: int, end: int) -> re.Match[str] | None:
    start = _value_at(text, at, end)
    if start < 0:
        return None
    return _SINGLE.match(text, start) or _DOUBLE.match(text, start)


def _variable(text: str, at: int, end: int) -> tuple[str, str]:
    name = _name(text, at, end)
    start = _value_at(text, at, end)
    quoted = _quoted(text, at, end)
    if quoted:
        if not _REST.match(text, quoted.end()):
            raise _Mistake(f"{name} goes on after its closing quote", "nothing more, or a comment")
        value = quoted[1] if text[start] == "'" else _double(name, quoted[1])
    elif text[start : start + 1] in ("'", '"') and start < end:
        raise _Mistake(f"the quote that {name} starts with is never closed", "the same quote at its end")
    else:
        value = _COMMENT.sub("", text[start:end]).strip()
        _refuse_reference(name, value)
    if "\0" in value:
        raise _Mistake(f"{name} contains a NUL character, which no environment can hold", "")
    return name, value


def _name(text: str, at: int, end: int) -> str:
    match = _NAME.match(text, at, end)
    name = match[1] if match else ""
    follows = text[match.end() : match.end() + 1] if match else ""
    if _VALID.fullmatch(name) and follows == "=":
        return name
    if "=" not in text[at:end]:
        # What stands there may be half of a secret that was broken in two.
        raise _Mistake("this line has no equals sign", "NAME=value, or a comment that starts with #")
    raise _Mistake(
        "this is not a valid environment variable name",
        "NAME=value with letters, digits and _, not starting with a digit",
    )


def _double(name: str, inside: str) -> str:
    _refuse_reference(name, inside)

    def one(match: re.Match[str]) -> str:
        return _ESCAPED.get(match[1], match[0])

    return _ESCAPE.sub(one, inside)


def _refuse_reference(name: str, value: str) -> None:
    if _REFERENCE.search(value):
        raise _Mistake(
            f"{name} contains ${{, and variables are not filled in here",
            "the value itself, or single quotes around it if that is meant",
        )
