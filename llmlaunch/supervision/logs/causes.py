"""Why a program ended, by its log: the first line that says an error. Pure.

The last line hardly ever tells. An engine of several processes fails in one of them, and all others then report that one of them
failed; interpreters complain while they end; libraries print links. So what counts is the earliest error that is neither of these,
after the last sign that the server was well: an error that it survived is not what ended it.

Of a chain of exceptions ("During handling of the above exception, …") the last one was raised by who knew what was being done; of
one that was raised ``from`` another, the other is the cause, unless it only says that a connection failed. Whatever names a lack
(memory, disk, permission) wins over both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from llmlaunch.common.terminal_text import one_line
from llmlaunch.supervision.logs.printed_lines import (
    IGNORED_EXCEPTION,
    Level,
    Line,
    is_link,
    is_noise,
    read_line,
)

_MOST = 300
"""Characters of a cause."""
_DETAILS = 3
"""Lines below an exception that may complete its message."""
_TRACEBACK = "Traceback (most recent call last):"
_OF_THE_PROGRAM = re.compile(r'\s+File "[^"]*", line \d+, in (?:<module>|_bootstrap|_run_module_as_main)$')
"""A frame that no destructor and no handler at exit has."""
_HANDLING = "During handling of the above exception"
_DIRECT = "The above exception was the direct cause"

_EXCEPTION = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?::(?: .*)?)?")
_NAMED_EXCEPTION = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Fault|OutOfResources): ")
_MODULES = re.compile(r"^(?:\w+\.){2,}(?=[A-Za-z]\w*(?::|$))")
_TOLD = re.compile(
    r"out of memory|no space left|disk quota|gated|too many requests|\b(?:401|403|429) client error|address already in use"
    r"|permission denied|no module named|cannot open shared object|compute capability",
    re.IGNORECASE,
)
_DEATH = re.compile(
    r"\b(?:exited|died|terminated|crashed|stopped) unexpectedly|\bis dead\b|\bdied during\b|\b(?:exit|return) ?code:? ?-\d"
    r"|crashed with exit code|killed by signal|^killed$",
    re.IGNORECASE,
)
_SIGNAL = re.compile(r"received signal|signal=SIG", re.IGNORECASE)
_EXIT_CODE = re.compile(r"exit code:? -?\d+", re.IGNORECASE)
_POINTER = re.compile(
    r"\bsee\b.{0,50}\b(?:root cause|stack ?trace|traceback|logs?|above|below)\b|\bcheck\b.{0,40}\blogs?\b|\broot cause\b"
    r"|sigquit|in a background process|\bchild (?:process )?failed|engine core initialization failed"
    r"|engine process failed to start|EngineDeadError|faulty rank",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(
    r"(?:[\w.]+\.)?(?:EOFError|BrokenPipeError|ConnectionResetError|CancelledError|KeyboardInterrupt|SystemExit"
    r"|(?:Base)?ExceptionGroup)\b"
)
_TRANSPORT = re.compile(
    r"(?:[\w.]+\.)?(?:HTTPError|HTTPStatusError|Connect(?:ion)?(?:Error|Timeout|RefusedError)|ReadTimeout|gaierror|MaxRetryError"
    r"|NameResolutionError|NewConnectionError|ProtocolError|SSLError)\b"
)
"""Exceptions of HTTP and below it: who called knows what could not be had."""
_HEADER = re.compile(
    r"\bfailed(?: to start)?\.?$|\bhit an exception\b|^(?:error|exception) in \w|^unhandled exception|^error executing method"
    r"|exiting due to|^aborted\b|\bcore dumped\b|application startup failed",
    re.IGNORECASE,
)
_SURVIVED = re.compile(
    r"warning|fall(?:ing)? ?back|\bignor|\bskip|\bretry|\bdisabl|failed to initialize CUDA|no usable GPU",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"(?:^|[^\w-])(?:error|fatal|panic(?:ked)?)(?:\s*:|\s+(?:loading|while|opening|reading|python|when|initiali[sz]ing|parsing|\d))"
    r"|^errors?\b|cannot open shared object|version `\w+_[\d.]+' not found|command not found|no such file or directory"
    r"|permission denied|no space left on device|address already in use|(?:couldn't|could not|failed to|unable to|cannot) \w+"
    r"|out of memory|segmentation fault|illegal instruction|terminate called|what\(\):|\bassert(?:ion)?\b.*\bfailed|GGML_ASSERT"
    r"|\binvalid (?:argument|option|choice|value)|unrecogni[sz]ed|\bunknown (?:argument|option|model)|no module named"
    r"|\[errno \d+\]|not enough (?:memory|space)|insufficient memory",
    re.IGNORECASE,
)
_ALIVE = re.compile(
    r"\"POST /\S* HTTP/[\d.]+\" 2\d\d|application startup complete|fired up and ready|all slots are idle|\bslot\s+release:",
    re.IGNORECASE,
)


class _Rank(IntEnum):
    """How much an error tells."""

    POINTER = 0
    """It says that another one tells more."""
    HEADER = 1
    """Something failed, or something failed that may not matter."""
    SIGNAL = 2
    ROOT = 3


@dataclass(slots=True)
class _Candidate:
    rank: _Rank
    index: int
    text: str


@dataclass(slots=True)
class _Chain:
    """The exceptions of tracebacks that belong together: index, text, and whether each was raised while handling the one before."""

    ignored: bool = False
    raised: list[tuple[int, str, bool]] = field(default_factory=list)

    def candidate(self) -> _Candidate | None:
        if self.ignored or not self.raised:
            return None
        told = [item for item in self.raised if not _is_consequence(item[1])]
        if not told:
            index, text, _ = self.raised[0]
            return _Candidate(_Rank.POINTER, index, text)
        chosen = told[0]
        for item in told[1:]:
            chosen = item if item[2] or _TRANSPORT.match(chosen[1]) else chosen
        chosen = next((item for item in told if _TOLD.search(item[1])), chosen)
        return _Candidate(_Rank.ROOT, chosen[0], chosen[1])


@dataclass(frozen=True, slots=True)
class Cause:
    """What a log gives as the reason, and in which of its rows."""

    text: str
    row: int


def find_cause(rows: Sequence[str], probe_paths: tuple[str, ...] = ()) -> Cause | None:
    """The first of ``rows`` that says an error, with what completes it below it; None if none does.

    ``probe_paths``: what is asked for to see whether the server is well, beside the usual paths.
    """
    reading = _Reading(probe_paths)
    for index, row in enumerate(rows):
        reading.take(index, read_line(row))
    best = reading.best()
    return Cause(_completed(rows, best), best.index) if best else None


def last_line(rows: Sequence[str], probe_paths: tuple[str, ...] = ()) -> str:
    """The last of ``rows`` that says anything, for a program that ended without an error; empty if there is none."""
    spoken = (row for row in reversed(rows) if not is_noise(read_line(row).text, probe_paths))
    return one_line(next(spoken, ""))[:_MOST]


def excerpt(
    rows: Sequence[str], cause: Cause | None, count: int, probe_paths: tuple[str, ...] = ()
) -> list[str]:
    """``count`` of ``rows`` at most for whoever is told of the end: the last ones without noise, and the cause with what led to it."""
    spoken = [
        index for index, row in enumerate(rows)
        if (cause and index == cause.row) or not is_noise(read_line(row).text, probe_paths)
    ]  # fmt: skip
    shown = spoken[-count:]
    if cause is None or cause.row in shown:
        return [rows[index] for index in shown]
    place = spoken.index(cause.row)
    upto = spoken[max(place + 1 - count // 3, 0) : place + 1]
    return [*(rows[i] for i in upto), "[…]", *(rows[i] for i in spoken[-(count - len(upto) - 1) :])]


class _Reading:
    """Collects the errors of a log from its first line to its last."""

    def __init__(self, probe_paths: tuple[str, ...]) -> None:
        self._paths = probe_paths
        self._found: list[_Candidate] = []
        self._chains: list[_Chain] = []
        self._open: dict[str, _Chain] = {}
        """Tracebacks whose exception has not come yet, by the process that prints them."""
        self._ended: dict[str, tuple[_Chain, bool | None]] = {}
        """Tracebacks that another may continue, and how: None as long as nothing says so."""
        self._headers: dict[str, _Candidate] = {}
        self._ignoring: set[str] = set()
        self._alive = -1

    def take(self, index: int, line: Line) -> None:
        """The next line."""
        text, source = line.text, self._speaker(line)
        if text.endswith(_TRACEBACK):
            self._begin(source)
        elif source in self._open and (not text.strip() or text[0].isspace()):
            self._open[source].ignored &= not _OF_THE_PROGRAM.match(text)
        elif source in self._open and _EXCEPTION.fullmatch(text) and (":" in text or not text.islower()):
            chain = self._open.pop(source)
            handling = bool(self._ended.get(source, (chain, False))[1])
            chain.raised.append((index, text, handling))
            self._ended[source] = (chain, None)
        elif text.startswith((_HANDLING, _DIRECT)) and source in self._ended:
            self._ended[source] = (self._ended[source][0], text.startswith(_HANDLING))
        elif text.strip():
            self._ignoring.discard(source)
            if IGNORED_EXCEPTION.search(text):
                self._ignoring.add(source)
            elif not is_noise(text, self._paths):
                self._judge(index, line, source)

    def _speaker(self, line: Line) -> str:
        # A logger marks only the first line of a message that has several.
        if line.source or line.level or "" in self._open or not self._open:
            return line.source
        return next(reversed(self._open))

    def _begin(self, source: str) -> None:
        chain, handling = self._ended.get(source, (_Chain(), None))
        if handling is None:
            chain = _Chain(ignored=source in self._ignoring)
            self._chains.append(chain)
            self._ended.pop(source, None)
        self._ignoring.discard(source)
        self._open[source] = chain
        if header := self._headers.pop(source, None):
            header.rank = min(header.rank, _Rank.HEADER)

    def _judge(self, index: int, line: Line, source: str) -> None:
        text = line.text.strip()
        self._headers.pop(source, None)
        if _ALIVE.search(text):
            self._alive = index
        elif (rank := _rank(line, text)) is not None:
            candidate = _Candidate(rank, index, text)
            self._found.append(candidate)
            if line.level is Level.ERROR:
                self._headers[source] = candidate

    def best(self) -> _Candidate | None:
        """The first of those that tell most."""
        found = [*self._found, *(c for chain in self._chains if (c := chain.candidate()))]
        found = [candidate for candidate in found if candidate.index > self._alive]
        # A signal ends healthy servers, too: only an error makes it a reason.
        if all(candidate.rank is _Rank.SIGNAL for candidate in found):
            return None
        return min(found, key=lambda candidate: (-candidate.rank, candidate.index))


def _is_consequence(text: str) -> bool:
    return bool(_CONSEQUENCE.match(text) or (_POINTER.search(text) and not _DEATH.search(text)))


def _rank(line: Line, text: str) -> _Rank | None:
    """How much a line outside of any traceback tells; None: it says no error."""
    if _DEATH.search(text):
        return _Rank.ROOT
    if line.level in (Level.INFO, Level.WARNING):
        return _Rank.SIGNAL if _SIGNAL.search(text) else None
    if line.level is not Level.ERROR and not _NAMED_EXCEPTION.match(text) and not _PLAIN.search(text):
        return _Rank.HEADER if _HEADER.search(text) and text[0].isupper() else None
    if _is_consequence(text):
        return _Rank.POINTER
    if _HEADER.search(text) or (line.level is not Level.ERROR and _SURVIVED.search(text)):
        return _Rank.HEADER
    return _Rank.ROOT


# ── the words ───────────────────────────────────────────────────────────────────────────────────────────────────────

_INCOMPLETE = re.compile(
    r"(?::|\bvalidation errors? for \w+|Client Error\.?(?: \(.*\))?|^Error|gated repo\.)$"
)
_INPUT = re.compile(r" \[type=\w+, input_value=.*")
_READ_MORE = re.compile(
    r"\s*[(,;]?\s*(?:(?:please )?see|for (?:more|further)|refer to|read more)\b[^.]*https?://\S+",
    re.IGNORECASE,
)
_LOOK_THERE = re.compile(r"\s*Please check[^.]*\blogs?\b[^.]*\.", re.IGNORECASE)


def _completed(rows: Sequence[str], found: _Candidate) -> str:
    text = _clean(found.text)
    below = [read_line(row) for row in rows[found.index + 1 : found.index + 1 + _DETAILS]]
    if _DEATH.search(text):
        spoken = next((line.text.strip() for line in below if line.text.strip()), "")
        text += f" {spoken}" if _EXIT_CODE.fullmatch(spoken) else ""
    elif _INCOMPLETE.search(text):
        for line in below:
            said = line.text.strip()
            if line.level or _TRACEBACK in said or said.startswith((_HANDLING, _DIRECT)):
                break
            if said and not is_link(said):
                text = f"{text.rstrip(':.')}: {_clean(said)}"
                if not re.fullmatch(
                    r"[\w.]+", said
                ):  # the name of a field; what is wrong with it comes below
                    break
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


def _clean(text: str) -> str:
    text = _MODULES.sub("", text.strip())
    for superfluous in (_INPUT, _READ_MORE, _LOOK_THERE):
        text = superfluous.sub("", text)
    return one_line(text)
