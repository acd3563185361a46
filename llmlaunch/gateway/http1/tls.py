"""The gateway's TLS certificate, which is loaded again when a renewal changes its files."""

from __future__ import annotations

import codecs
import logging
import os
import ssl
import stat
from pathlib import Path

from llmlaunch.errors import UsageError

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""Seconds that a client has to complete a handshake."""
SHUTDOWN_S = 2.0
"""Seconds that a client has to answer the end of a TLS connection."""
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Certificate:
    """``context`` serves the certificate chain of ``cert`` with the private key of ``key`` (both PEM)."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises UsageError when the files cannot be used."""
        self._cert = cert
        self._key = key
        self._loaded = self._stamps()
        self.context = _context()
        _load(self.context, cert, key)

    def refresh(self) -> None:
        """Load the files for new connections if they changed. If they do not match, the old certificate stays.

        That is normal for a moment, since a renewal writes one file after the other: the next change is tried again.
        """
        found = self._stamps()
        if found == self._loaded:
            return
        self._loaded = found
        try:
            # Tried on a new context first: a pair that does not match would leave half of itself in the context.
            _load(_context(), self._cert, self._key)
            _load(self.context, self._cert, self._key)
        except UsageError as error:
            log.warning("the certificate is unchanged: %s", error.message)
        else:
            log.info("reloaded the certificate: %s", self._cert)

    def _stamps(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for file in (self._cert, self._key):
            try:
                about = file.stat()
            except OSError:
                found.append((0,))
            else:
                found.append((about.st_mtime_ns, about.st_size, about.st_ino))
        return found


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    starts = [_start(file) for file in (cert, key)]
    asked = False

    def password() -> bytes:
        # Otherwise OpenSSL would ask on the terminal, and the server would wait there for ever.
        nonlocal asked
        asked = True
        return b""

    try:
        context.load_cert_chain(cert, key, password)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            reason, hint = (
                "the key is encrypted",
                f"openssl pkey -in {key} -out plain-key.pem makes one that is not",
            )
        elif getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            reason, hint = (
                "the key does not belong to the certificate",
                "name the two files that were made together",
            )
        else:
            reason, hint = (
                "not a certificate and its private key in PEM format",
                "both files begin with -----BEGIN",
            )
            for file, start in zip((cert, key), starts, strict=True):
                if start.startswith(_BYTE_ORDER_MARKS):
                    reason = f"{file.name} begins with a byte order mark, which PEM does not have"
                    hint = "save it as plain ASCII text"
        raise UsageError(f"TLS files {cert} and {key}: {reason}", hint=hint) from None


def _start(file: Path) -> bytes:
    """The first bytes of ``file``. Raises UsageError when it cannot be read, or is not a regular file or a pipe."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"TLS file {file}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("pipe:"):
                return b""  # a shell's <(…): it may be read only once
            raise UsageError(f"TLS file {file}: it is not a file", hint="name a PEM file")
        return os.read(descriptor, 4)
    finally:
        os.close(descriptor)


def certificate(cert: Path | None, key: Path | None) -> Certificate | None:
    """The certificate of these two files; None when neither is given. Raises UsageError when only one is given, or when
    they cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, missing = ("--tls-cert", "--tls-key") if key is None else ("--tls-key", "--tls-cert")
        raise UsageError(f"{given} is given without {missing}", hint="TLS needs both")
    return Certificate(cert, key)
