"""API keys: read from a file or from an environment variable, stored and compared as keyed hashes only.

A file holds one key a line, bare or as ``name: key``, followed by the limits of the key::

    alice: sk-...  rpm=60 tpm=100000 concurrency=4 models=llama,qwen priority=-1

``#`` starts a comment. The file is read again when it changes, so keys can be added, limited or revoked while the
gateway runs. Names are logged, keys never.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import logging
import os
import re
import select
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from llmlaunch.errors import UsageError
from llmlaunch.gateway.limits.api_key import UNLIMITED, ApiKey, KeyLimits

log = logging.getLogger(__name__)

_LINE = re.compile(r"(?:(?P<name>[\w.@-]+)\s*:\s+)?(?P<key>[\x21-\x7e]+)(?P<limits>(?:\s+[a-z]+=\S*)*)")
_ASSIGNED = re.compile(r"(?:export\s+)?[\w.@-]+\s*=\s*[^\s=].*")
"""``NAME=KEY``, as other programs write it. A Base64 key has ``=`` only at its end."""
_JOINED = re.compile(r"[^\s:,;|]+:sk-\S|(?:[\w.@-]+\s*:\s+)?[^\s:,;|]+[,;|]sk-\S")
"""``NAME:KEY``, or several keys without a space. A key may contain colons and commas, but no ``sk-`` after one."""
_UNFILLED = re.compile(r"(?:[\w.@-]+\s*:\s+)?\$(?:\{[^}\s]*\}|[A-Z_]+)")
_QUOTES = "\"'`“”‘’"
_AROUND_QUOTES = "[](){},;:"
_BOM = "\ufeff"
_PIPE_S = 2.0
"""Seconds to wait for data when the file is a pipe."""
_NUMBERS = ("rpm", "tpm", "concurrency")
_SYNTAX = "write NAME: KEY or a bare KEY without spaces in it, then limits: rpm=60 tpm=100000 concurrency=4 models=a,b"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key and its limits, as one line of a file has them."""

    key: str = field(repr=False)
    limits: KeyLimits = UNLIMITED


class KeyRing:
    """The valid API keys. The time of a lookup reveals nothing about them: only hashes, keyed with a secret of this
    process, are compared."""

    def __init__(self, keys: Mapping[str, KeyEntry], file: Path | None = None, processes: int = 1) -> None:
        """``keys``: those that do not come from ``file``, by name. The limits of a key are shared by ``processes``."""
        self._processes = processes
        self._secret = os.urandom(32)
        self._fixed = self._hashed(keys)
        self._grants = dict(self._fixed)
        self._file = file
        self._read_stamp: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self._grants)

    def find(self, key: bytes) -> ApiKey | None:
        """What is known of ``key``; None if it is not a valid one."""
        return self._grants.get(self._hash(key))

    def load(self) -> None:
        """Read the file for the first time. Raises UsageError when it cannot be used or holds no key."""
        if self._file is None:
            return
        try:
            self._read(self._file)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(_describe(self._file, error)) from error
        if not self._grants:
            raise UsageError(
                f"API keys file {self._file} contains no keys: every request would be refused",
                hint="put one key a line into it, or leave --api-keys-file out to serve without keys",
            )

    def refresh(self) -> bool:
        """Read the file again if it has changed; whether it was. If it cannot be read, the keys stay as they are."""
        if self._file is None:
            return False
        try:
            about = self._file.stat()
            if self._stamp(about) == self._read_stamp or stat.S_ISFIFO(about.st_mode):
                return False  # a pipe can be read only once
            self._read(self._file)
        except (OSError, UnicodeDecodeError, UsageError) as error:
            now = (0,)
            if self._read_stamp != now:
                log.warning("API keys are unchanged: %s", _describe(self._file, error))
            self._read_stamp = now
            return False
        log.info("reloaded API keys: %d", len(self._grants))
        if not self._grants:
            log.warning("API keys file %s contains no keys any more: every request is refused", self._file)
        return True

    def _read(self, file: Path) -> None:
        with _open(file) as stream:
            about = os.fstat(stream.fileno())
            keys = parse(stream, str(file))
        if about.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            log.warning("API keys file %s is readable or writable by every user; run chmod 600 on it", file)
        self._read_stamp = self._stamp(about)
        self._grants = self._fixed | self._hashed(keys)

    def _hashed(self, keys: Mapping[str, KeyEntry]) -> dict[bytes, ApiKey]:
        return {
            self._hash(entry.key.encode()): ApiKey(name, self._part(entry.limits), entry.limits)
            for name, entry in keys.items()
        }

    def _part(self, limits: KeyLimits) -> KeyLimits:
        return UNLIMITED if limits == UNLIMITED else limits.share_of(self._processes)

    @staticmethod
    def _stamp(about: os.stat_result) -> tuple[int, ...]:
        return (about.st_mtime_ns, about.st_size, about.st_ino)

    def _hash(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def parse(lines: Iterable[str], source: str) -> dict[str, KeyEntry]:
    """Entries by name. A key without a name gets the name ``key-N``, N being its line. Raises UsageError with the line."""
    found: dict[str, KeyEntry] = {}
    seen: dict[str, int] = {}
    for number, whole in enumerate(lines, 1):
        line = whole.lstrip(_BOM)  # concatenated files may have one in the middle
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if not text:
            continue
        _reject_other_formats(text, f"{source}:{number}")
        match = _LINE.fullmatch(text)
        if match is None:
            # Never the line itself: it may be a key.
            raise UsageError(
                f"{source}:{number}: {_invisible_character(whole) or 'invalid key'}", hint=_SYNTAX
            )
        name = match["name"] or f"key-{number}"
        if name in found:
            raise UsageError(f"{source}:{number}: duplicate name {name!r}")
        if (first := seen.setdefault(match["key"], number)) != number:
            raise UsageError(
                f"{source}:{number}: duplicate key: the same as in line {first}",
                hint="give everybody a key of their own: its name and its limits could be either line's",
            )
        found[name] = KeyEntry(match["key"], _limits(match["limits"], f"{source}:{number}"))
    return found


def _reject_other_formats(text: str, where: str) -> None:
    """Raise UsageError for the formats of other programs: read literally, they would make keys that nobody has."""
    if _ASSIGNED.fullmatch(text):
        raise UsageError(f"{where}: NAME=KEY is not a valid line", hint=_SYNTAX)
    if _JOINED.match(text):
        raise UsageError(f"{where}: more than one key without a space between them", hint=_SYNTAX)
    if _UNFILLED.fullmatch(text):
        raise UsageError(
            f"{where}: this is the name of a variable; variables are not expanded",
            hint="write the key itself, or name its variable with api_keys_env",
        )
    words = [word.strip(_AROUND_QUOTES) for word in text.split()]
    if any(word and (word[0] in _QUOTES or word[-1] in _QUOTES) for word in words):
        raise UsageError(f"{where}: there are quotes around a name or a key", hint="write it without quotes")
    if text.endswith((",", ";")):
        raise UsageError(
            f"{where}: the line ends with {text[-1]!r}", hint="put one key on each line, with nothing between"
        )


def _invisible_character(line: str) -> str:
    """Describes the first invisible character that is not allowed, as pasted text may have one; "" if there is none."""
    if "\0" in line:
        return "there are NUL bytes in it, as in UTF-16 text; save the file as UTF-8"
    for column, letter in enumerate(line.rstrip("\r\n"), 1):
        if (
            letter != "\t"
            and unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Zs")
            and letter != " "
        ):
            name = unicodedata.name(letter, "a control character")
            return f"column {column} holds U+{ord(letter):04X} ({name}), which cannot be seen"
    return ""


def _open(file: Path) -> TextIO:
    """Open ``file`` without waiting forever for the writer of a pipe. Raises OSError and UsageError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        if stat.S_ISFIFO(mode):
            if not select.select([descriptor], [], [], _PIPE_S)[0]:
                raise UsageError(f"API keys file {file}: it is a pipe, and nothing writes to it")
            os.set_blocking(descriptor, True)
        elif not stat.S_ISREG(mode):
            raise UsageError(f"API keys file {file}: it is not a file")
        return os.fdopen(descriptor, encoding="utf-8-sig")
    except BaseException:
        os.close(descriptor)
        raise


def _describe(file: Path, error: OSError | UnicodeDecodeError | UsageError) -> str:
    if isinstance(error, UsageError):
        return error.message
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:
        utf16 = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        reason = "it is UTF-16 text; save it as UTF-8" if utf16 else "it is not UTF-8 text"
    return f"API keys file {file}: {reason}"


def _limits(text: str, where: str) -> KeyLimits:
    """Parse the limits. Raises UsageError, whose message quotes nothing of the line but names of limits."""
    given: dict[str, str] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in (*_NUMBERS, "models", "priority"):
            raise UsageError(f"{where}: unknown limit after the key", hint=_SYNTAX)
        if name in given:
            raise UsageError(f"{where}: duplicate limit {name}=")
        given[name] = value
    numbers = {name: _number(given[name], 1, f"{where}: {name}=") for name in _NUMBERS if name in given}
    models = None
    if "models" in given:
        models = frozenset(given["models"].split(","))
        if "" in models:
            raise UsageError(f"{where}: models= must be names separated by commas", hint="models=llama,qwen")
    priority = _number(given["priority"], -100, f"{where}: priority=") if "priority" in given else 0
    return KeyLimits(**numbers, models=models, priority=priority)


def _number(text: str, least: int, what: str) -> int:
    if re.fullmatch(r"-?[0-9]{1,9}", text) is None or int(text) < least:
        raise UsageError(f"{what} must be a whole number of at least {least}")
    return int(text)


def load_key_ring(file: Path | None, variable: str | None, processes: int = 1) -> KeyRing | None:
    """The keys of ``file`` and of the environment ``variable``, which separates them by commas; None if neither is given.

    Raises UsageError if one is given and holds no key.
    """
    keys: dict[str, KeyEntry] = {}
    if variable:
        values = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]
        if not values:
            raise UsageError(
                f"--api-keys-env: the environment variable {variable} contains no keys",
                hint=f"set it to one key, or to several separated by commas: {variable}=key1,key2",
            )
        keys = parse(values, f"${variable}")
    if file is None and not variable:
        return None
    found = KeyRing(keys, file, processes)
    found.load()
    return found
