"""Checks that a worker's address is well-formed, and that a worker answers there.

A registration makes the controller open a connection, and gateways send prompts. So an address is just
``http(s)://host:port``; a caller without a token may only name the machine that it calls from; and a worker is probed for the
models that it serves before it is listed. No redirect is followed, and an answer is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from llmlaunch.common import http_client
from llmlaunch.common.addresses import bracketed, is_loopback, parse
from llmlaunch.controller.tokens import worker_key
from llmlaunch.controller.wire import WorkerStatus

PROBE_TIMEOUT_S = 3.0
"""Seconds that a worker has to say what it serves."""
MAX_CONCURRENT_PROBES = 64
MAX_BODY_BYTES = 256 << 10
_HEAD_BYTES = 32 << 10


class BadAddressError(ValueError):
    """The text is not the address of a worker."""


class ProbeFailedError(Exception):
    """No good answer came from the address. The text says why."""


class NotListeningError(ProbeFailedError):
    """Nothing listens at the address."""


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where a worker listens."""

    scheme: str
    host: str
    """Without brackets."""
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"


def parse_address(text: str) -> WorkerAddress:
    """The worker's address in canonical form. Raises BadAddressError."""
    text = text.strip()
    if any(c.isspace() or not c.isprintable() for c in text):  # urlsplit would drop some of them
        raise BadAddressError(f"worker address {text!r} contains invalid characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadAddressError(f"worker address {text!r} is not a valid URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise BadAddressError(f"worker address {text!r} must start with http:// or https://")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise BadAddressError(f"worker address {text!r} must have a host and no user")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadAddressError(f"worker address {text!r} must be just http://host:port")
    if port == 0:
        raise BadAddressError(f"worker address {text!r} has no port")
    return WorkerAddress(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def is_own(address: WorkerAddress, client: str) -> bool:
    """Whether ``address`` is on the machine that the IP ``client`` calls from.

    A host name other than localhost is not: it may resolve differently later.
    """
    if is_loopback(address.host):
        return is_loopback(client)
    ip = parse(address.host)
    return ip is not None and ip == parse(client)


class WorkerProber:
    """Probes many workers at once, each with a time limit, so that a stuck one delays no other.

    A worker has ``timeout_s`` seconds to answer, and a probe may wait as long again for a free slot. The keys of workers are
    derived from ``seed``; "" means that they have none.
    """

    def __init__(self, timeout_s: float = PROBE_TIMEOUT_S, seed: str = "") -> None:
        self._timeout_s = timeout_s
        self._seed = seed
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_PROBES)

    def _key(self, address: WorkerAddress, keyed: bool) -> str:
        return worker_key(self._seed, str(address)) if keyed and self._seed else ""

    async def status(self, address: WorkerAddress, keyed: bool = False) -> WorkerStatus:
        """The answer to POST ``address``/worker_get_status; ``keyed``: send its key. Raises ProbeFailedError."""
        key = self._key(address, keyed)
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._slots:
                answer = await _ask(address, "POST", "/worker_get_status", self._timeout_s, b"{}", key)
        except TimeoutError:
            raise ProbeFailedError(f"{address} did not answer within {self._timeout_s:g} s") from None
        except http_client.HttpError as error:
            kind = NotListeningError if _not_listening(error) else ProbeFailedError
            raise kind(f"{address} could not be asked for its status: {error}") from error
        if answer.status != 200:
            raise ProbeFailedError(f"{address}/worker_get_status answered {answer.status}, not 200")
        try:
            return WorkerStatus.model_validate_json(answer.body)
        except ValidationError:
            raise ProbeFailedError(f"{address}/worker_get_status is not a worker's") from None

    async def check_health(
        self, address: WorkerAddress, path: str, seconds: float, keyed: bool = False
    ) -> None:
        """Return if GET ``address`` ``path`` is answered with 2xx within ``seconds``; with path "", if it accepts a connection.

        Raises NotListeningError when nothing listens there, ProbeFailedError for any other failure.
        """
        try:
            async with asyncio.timeout(self._timeout_s + seconds), self._slots:
                if not path:
                    await http_client.check_connection(
                        address.host, address.port, timeout_s=seconds, tls=_tls(address)
                    )
                    return
                answer = await _ask(address, "GET", path, seconds, key=self._key(address, keyed))
        except TimeoutError:
            raise ProbeFailedError(f"{address}{path} did not answer within {seconds:g} s") from None
        except http_client.HttpError as error:
            if _not_listening(error):
                raise NotListeningError(f"nothing listens at {address}: {error}") from error
            raise ProbeFailedError(f"{address}{path} could not be asked: {error}") from error
        if not answer.ok:
            raise ProbeFailedError(f"{address}{path} answered {answer.status}")

    async def has_template(self, address: WorkerAddress, model: str) -> bool:
        """Whether POST ``address``/worker_get_conv_template answers for ``model`` as FastChat's workers do."""
        body = json.dumps({"model": model}).encode()
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._slots:
                answer = await _ask(address, "POST", "/worker_get_conv_template", self._timeout_s, body)
        except (http_client.HttpError, TimeoutError):
            return False
        found = answer.json()
        return answer.status == 200 and isinstance(found, dict) and isinstance(found.get("conv"), dict)


def _not_listening(error: http_client.HttpError) -> bool:
    return isinstance(error, http_client.CannotConnect) and not isinstance(error, http_client.TlsFailed)


async def _ask(
    address: WorkerAddress, method: str, path: str, seconds: float, content: bytes = b"", key: str = ""
) -> http_client.Response:
    return await http_client.ask(
        address.host,
        address.port,
        method,
        path,
        timeout_s=seconds,
        head_limit=_HEAD_BYTES,
        body_limit=MAX_BODY_BYTES,
        content=content,
        token=key,
        tls=_tls(address),
    )


def _tls(address: WorkerAddress) -> ssl.SSLContext | None:
    return ssl.create_default_context() if address.scheme == "https" else None
