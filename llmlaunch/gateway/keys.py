"""API keys: read from a file or from an environment variable, kept and compared as keyed hashes only.

A file holds one key a line, bare or as ``name: key``; ``#`` starts a comment. It is read again when it changes, so a key
can be added or withdrawn while the gateway runs. Names go into logs, keys never.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from llmlaunch.errors import UsageError

log = logging.getLogger(__name__)

_LINE = re.compile(r"(?:(?P<name>[\w.@-]+)\s*:\s+)?(?P<key>[\x21-\x7e]+)")


class KeyRing:
    """Who may ask. Looking a key up takes a time that says nothing about the keys: only their hashes, keyed with a
    secret of this process, are ever compared."""

    def __init__(self, keys: dict[str, str], file: Path | None = None) -> None:
        """``keys``: name → key."""
        self._secret = os.urandom(32)
        self._fixed = {self._hash(key.encode()): name for name, key in keys.items()}
        self._names = dict(self._fixed)
        self._file = file
        self._seen: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, authorization: bytes) -> str | None:
        """The name of the key in ``Authorization: Bearer KEY``, None when it is no key of ours."""
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        return self._names.get(self._hash(key.strip()))

    def load(self) -> None:
        """Read the file the first time. Raises UsageError when it can not be used."""
        if self._file is None:
            return
        try:
            self._read(self._file)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise UsageError(f"API keys file {self._file}: {reason}") from error
        if not self._names:
            raise UsageError(
                f"API keys file {self._file} holds no key: nobody could ask anything",
                hint="put one key a line into it, or leave --api-keys-file out to serve without keys",
            )

    def refresh(self) -> None:
        """Read the file again if it changed. A file that can not be read leaves the keys as they were."""
        if self._file is None:
            return
        try:
            if self._stamp(self._file.stat()) == self._seen:
                return
            self._read(self._file)
        except (OSError, UnicodeDecodeError, UsageError) as error:
            now = (0,)
            if self._seen != now:
                log.warning("API keys stay as they were: %s", error)
            self._seen = now
            return
        log.info("API keys read again: %d", len(self._names))
        if not self._names:
            log.warning("API keys file %s holds no key any more: every request is refused", self._file)

    def _read(self, file: Path) -> None:
        with file.open(encoding="utf-8") as stream:
            about = os.fstat(stream.fileno())
            keys = parse(stream, str(file))
        if about.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            log.warning("API keys file %s can be read or written by everybody; chmod 600 it", file)
        self._seen = self._stamp(about)
        self._names = self._fixed | {self._hash(key.encode()): name for name, key in keys.items()}

    @staticmethod
    def _stamp(about: os.stat_result) -> tuple[int, ...]:
        return (about.st_mtime_ns, about.st_size, about.st_ino)

    def _hash(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def parse(lines: Iterable[str], source: str) -> dict[str, str]:
    """name → key. A key without a name is called ``key-N`` after its line. Raises UsageError with the line's number."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip() if line.lstrip().startswith("#") else line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            # Never the line itself: it may be a key.
            raise UsageError(
                f"{source}:{number}: this is no key",
                hint="write NAME: KEY or a bare KEY, without spaces in it",
            )
        name = match["name"] or f"key-{number}"
        if name in found:
            raise UsageError(f"{source}:{number}: the name {name!r} is given twice")
        found[name] = match["key"]
    return found


def ring(file: Path | None, variable: str | None) -> KeyRing | None:
    """The keys of a file and of the comma-separated environment ``variable``; None when neither is named.

    Raises UsageError when one is named and holds no key.
    """
    keys: dict[str, str] = {}
    if variable:
        values = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]
        if not values:
            raise UsageError(
                f"--api-keys-env: the environment variable {variable} holds no key",
                hint=f"set it to one key, or several with commas between: {variable}=key1,key2",
            )
        keys = parse(values, f"${variable}")
    if file is None and not variable:
        return None
    found = KeyRing(keys, file)
    found.load()
    return found
