"""A worker's address must be one that its registrar may name, and must answer as itself.

A registration makes the controller open a connection and gateways send prompts. So an address is plain
``http(s)://host:port``; somebody without the token may only name the machine they call from; and the address is asked
which models it serves before anybody believes it. No redirect is followed, an answer is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from llmlaunch.common.addresses import is_loopback, parse
from llmlaunch.controller.grants import worker_key
from llmlaunch.controller.wire import WorkerStatus

ASK_S = 3.0
"""Seconds a worker has to say what it serves."""
ASKS_AT_ONCE = 64
ANSWER_BYTES = 256 << 10


class BadAddressError(ValueError):
    """The text is no worker's address, or one that this caller may not name."""


class NoStatusError(Exception):
    """The address does not answer /worker_get_status as a worker does. The text says why."""


class NobodyThereError(NoStatusError):
    """Nobody listens at the address."""


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    scheme: str
    host: str
    """Without brackets."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(text: str) -> WorkerAddress:
    """The worker's address in its one spelling. Raises BadAddressError."""
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

    Names other than localhost are not: they may resolve differently when they are asked.
    """
    if is_loopback(address.host):
        return is_loopback(client)
    ip = parse(address.host)
    return ip is not None and ip == parse(client)


class Asker:
    """Asks workers for their status: many at once, each bounded, so that a stuck one holds up nobody.

    A worker has ``seconds`` to answer, and its question waits as long again for its turn. ``seed``: what the keys of
    workers are derived from; "" means that none has one.
    """

    def __init__(self, seconds: float = ASK_S, seed: str = "") -> None:
        self._seconds = seconds
        self._seed = seed
        self._turns = asyncio.Semaphore(ASKS_AT_ONCE)

    def _key(self, address: WorkerAddress, keyed: bool) -> str:
        return worker_key(self._seed, str(address)) if keyed and self._seed else ""

    async def status(self, address: WorkerAddress, keyed: bool = False) -> WorkerStatus:
        """What POST ``address``/worker_get_status says; ``keyed``: it asks for its key. Raises NoStatusError."""
        key = self._key(address, keyed)
        try:
            async with asyncio.timeout(2 * self._seconds), self._turns, asyncio.timeout(self._seconds):
                status, body = await _post(address, "/worker_get_status", key=key)
        except _Unconnected as error:
            raise NobodyThereError(f"{address} could not be asked for its status: {error}") from error
        except TimeoutError:
            raise NoStatusError(f"{address} did not answer within {self._seconds:g} s") from None
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            reason = str(error) or type(error).__name__
            raise NoStatusError(f"{address} could not be asked for its status: {reason}") from error
        if status != 200:
            raise NoStatusError(f"{address}/worker_get_status answered {status}, not 200")
        try:
            return WorkerStatus.model_validate_json(body)
        except ValidationError:
            raise NoStatusError(f"{address}/worker_get_status is not a worker's") from None

    async def is_well(self, address: WorkerAddress, path: str, seconds: float, keyed: bool = False) -> None:
        """Return when GET ``address`` ``path`` is answered with 2xx within ``seconds``; "" asks for a connection alone.

        Raises NobodyThereError when nobody listens, else NoStatusError.
        """
        try:
            async with asyncio.timeout(self._seconds + seconds), self._turns, asyncio.timeout(seconds):
                key = self._key(address, keyed)
                status = (
                    (await _exchange(address, "GET", path, key=key))[0] if path else await _knock(address)
                )
        except _Unconnected as error:
            raise NobodyThereError(f"nothing listens at {address}: {error}") from error
        except TimeoutError:
            raise NoStatusError(f"{address}{path} did not answer within {seconds:g} s") from None
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            reason = str(error) or type(error).__name__
            raise NoStatusError(f"{address}{path} could not be asked: {reason}") from error
        if not 200 <= status < 300:
            raise NoStatusError(f"{address}{path} answered {status}")

    async def has_template(self, address: WorkerAddress, model: str) -> bool:
        """Whether POST ``address``/worker_get_conv_template answers for ``model`` as FastChat's workers do."""
        question = json.dumps({"model": model}).encode()
        try:
            async with asyncio.timeout(2 * self._seconds), self._turns, asyncio.timeout(self._seconds):
                status, body = await _post(address, "/worker_get_conv_template", question)
            answer = json.loads(body)
        except (OSError, ValueError, EOFError, RecursionError, asyncio.LimitOverrunError):
            return False
        return status == 200 and isinstance(answer, dict) and isinstance(answer.get("conv"), dict)


class _Unconnected(OSError):
    """No connection was made. Of a name with several addresses, at none of them."""


async def _post(address: WorkerAddress, path: str, body: bytes = b"{}", key: str = "") -> tuple[int, bytes]:
    return await _exchange(address, "POST", path, body, key)


async def _knock(address: WorkerAddress) -> int:
    """Connect and leave: 200 for want of an answer."""
    _, writer = await _connected(address)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return 200


async def _connected(address: WorkerAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context() if address.scheme == "https" else None
    try:
        return await asyncio.open_connection(address.host, address.port, ssl=context, limit=32 << 10)
    except (TimeoutError, ssl.SSLError):
        raise
    except OSError as error:
        raise _Unconnected(str(error)) from error


async def _exchange(
    address: WorkerAddress, method: str, path: str, body: bytes = b"", key: str = ""
) -> tuple[int, bytes]:
    """One HTTP/1.1 exchange: status and body. A client library would be a tenth of the controller's memory."""
    reader, writer = await _connected(address)
    try:
        authority = str(address).partition("://")[2]
        shown = f"Authorization: Bearer {key}\r\n" if key else ""
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{shown}{content}"
            "Accept: application/json\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("its answer is not HTTP")
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        return int(rest[:3]), await _body(reader, fields)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            _bounded(len(body) + size)
            body += (await reader.readexactly(size + 2))[:-2]
        return body
    if "content-length" in fields:
        return await reader.readexactly(_bounded(int(fields["content-length"])))
    body = b""
    while piece := await reader.read(64 << 10):
        body += piece
        _bounded(len(body))
    return body


def _bounded(size: int) -> int:
    if not 0 <= size <= ANSWER_BYTES:
        raise ValueError(f"its answer is larger than {ANSWER_BYTES} bytes")
    return size
