"""What a line of an engine's log says, without what loggers put in front of it. Pure.

vLLM, SGLang, llama.cpp, PyTorch, uvicorn and the usual loggers of Python and Rust each mark time, level and process in a way of their
own. What is left when all of that is removed can be compared between engines and from one version to the next.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How serious a logger says that a line is."""

    UNKNOWN = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log."""

    text: str
    """Without prefixes; the indentation behind them stays."""
    source: str = ""
    """The process that printed it, as far as its prefix tells."""
    level: Level = Level.UNKNOWN


@dataclass(frozen=True, slots=True)
class Step:
    """A line that shows that a start goes on."""

    text: str
    share: float | None = None
    """How far it is, from 0 to 1, if the line says so."""


_DATE = r"(?:\d{4}[-/]\d\d[-/]\d\d|\d\d-\d\d)"
_TIME = r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
_LEVEL = r"(?P<level>TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|CRITICAL|FATAL)"
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\((?P<source>[^()]*\bpid=\d+[^()]*)\) ?",  # vLLM and Ray: (EngineCore pid=123)
        r"\[(?P<source>rank ?\d+)\]:? ?",  # PyTorch
        rf"\[?(?P<level>[IWEF])\d{{3,4}} {_TIME}\s+(?:\d+ )?[\w./-]+:\d+\] ?",  # glog: [E421 04:13:43.4 a.cpp:1]
        rf"{_LEVEL} {_DATE} {_TIME}(?: \[?[\w./<>-]+:\d+\])? ?",  # vLLM
        rf"\[{_DATE}[ T]{_TIME}Z?(?P<source>(?: [A-Z]+\d+)*)\] ?",  # SGLang
        r"\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[IWED]) ",  # llama.cpp
        r"(?:\[\d+\] )?(?P<level>[EW]) (?=[a-z_]+[ :])",  # llama.cpp without times
        r" {2,}[|+] ",  # the margin of Python's exception groups
        rf"(?:[\w.]+ - ){_LEVEL} - ",  # Python's logging, with the names of loggers
        rf"{_DATE}[ T]{_TIME}(?:Z|[+-]\d\d:?\d\d)?(?: ?[|:-])? *",
        rf"\[{_LEVEL}\s*\]:? *",
        rf"{_LEVEL}(?:: ?[\w.]+:(?=\S)| *[:|]| -)? +",  # INFO:     text, ERROR root: text
        rf"{_LEVEL}:[\w.]+:(?=\S)",  # Python's default
    )
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LOGFMT = re.compile(r"""\blevel=["']?(?P<level>\w+).*?\bmsg=(?P<text>"(?:[^"\\]|\\.)*"|\S+)""")
_LEVELS = {"E": Level.ERROR, "C": Level.ERROR, "F": Level.ERROR, "W": Level.WARNING}

_PROBE = re.compile(
    r"\b(?:GET|HEAD) /(?:health\w*|healthz?|ready|readyz|live|livez|ping|metrics|v1/models|get_model_info|model_info"
    r"|get_server_info|server_info|slots)?(?=[?\s\"]|$)"
)
_SHUTDOWN = re.compile(
    r"resource_tracker|^\s*warnings\.warn\(|^nanobind: |^ - (?:leaked |\.\.\. skipped)|refleaks\.html|\bleaked semaphore"
    r"|destroy_process_group|\b\w*Warning: |^\s*sys:1: |Task was destroyed but it is pending|Unclosed (?:client session|connector)"
    r"|at interpreter shutdown|^Process [\w-]+:$"
)
IGNORED_EXCEPTION = re.compile(r"^Exception ignored |^Error in (?:sys\.excepthook|atexit)")
"""Python's words before a traceback that ended nothing: of a destructor, of a handler at exit."""
_URL = re.compile(r"https?://\S+")
_INTRODUCTION = re.compile(
    r"(?:\W*(?:please )?(?:see|visit|refer|read|check|for (?:more|further|details|help)|more|help|documentation|docs?|details"
    r"|info(?:rmation)?)\b.*)?\W*",
    re.IGNORECASE,
)
_BAR = re.compile(
    r"(?P<what>.*?)[:\s]*(?P<share>\d{1,3})(?:\.\d+)?%\s*(?:completed\s*)?(?:\|(?:[^|]*\|)?\s*(?P<count>[\d.]+\w*/[\d.]+\w*)?|$)",
    re.IGNORECASE,
)


def read_line(row: str) -> Line:
    """``row`` of a log, taken apart. Colours are removed as well."""
    text = _COLOURS.sub("", row).rstrip()
    source, level = "", Level.UNKNOWN
    if structured := _structured(text):
        return structured
    matched = True
    while matched:
        matched = False
        for prefix in _PREFIXES:
            if match := prefix.match(text):
                given = match.groupdict()
                source = source or (given.get("source") or "").strip()
                level = level or _level(given.get("level"))
                text, matched = text[match.end() :], True
                break
    return Line(text, source, level)


def _level(name: str | None) -> Level:
    return _LEVELS.get(name[0].upper(), Level.INFO) if name else Level.UNKNOWN


def _structured(text: str) -> Line | None:
    """A line of JSON or logfmt."""
    if text.startswith("{") and text.endswith("}"):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            return None
        said = given.get("message", given.get("msg", given.get("fields")))
        said = said.get("message") if isinstance(said, dict) else said
        level = given.get("level", given.get("severity"))
        return Line(said, "", _level(level)) if isinstance(said, str) and isinstance(level, str) else None
    if match := _LOGFMT.search(text):
        return Line(match["text"].strip('"'), "", _level(match["level"]))
    return None


def is_probe(text: str, paths: tuple[str, ...] = ()) -> bool:
    """Whether a line reports that somebody asked whether the server is well. ``paths`` are asked for beside the usual ones."""
    if _PROBE.search(text):
        return True
    return any(path and re.search(rf"\b(?:GET|HEAD) {re.escape(path)}(?=[?\s\"]|$)", text) for path in paths)


def is_noise(text: str, paths: tuple[str, ...] = ()) -> bool:
    """Whether a line never says why something failed: probes, warnings, what interpreters print at their end, links."""
    return bool(
        not text.strip()
        or is_probe(text, paths)
        or _SHUTDOWN.search(text)
        or IGNORED_EXCEPTION.search(text)
        or is_link(text)
    )


def is_link(text: str) -> bool:
    """Whether a line only says where to read more."""
    return bool(_URL.search(text) and _INTRODUCTION.fullmatch(_URL.sub("", text)))


def read_step(row: str, patterns: tuple[re.Pattern[str], ...]) -> Step | None:
    """What ``row`` says about a start if it matches one of ``patterns``, which are tried on the text without prefixes."""
    text = read_line(row).text.strip()
    if not text or not any(pattern.search(text) for pattern in patterns):
        return None
    # A bar is drawn again and again, with other times: only how far it is counts.
    bar = _BAR.match(text)
    if bar is None or int(bar["share"]) > 100:
        return Step(text)
    share = int(bar["share"])
    count = f" ({bar['count']})" if bar["count"] else ""
    return Step(f"{bar['what']}: {share}%{count}" if bar["what"] else f"{share}%{count}", share / 100)
