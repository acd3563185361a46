"""A reply that is sent after a delay. Implements ``client_connection.Responder``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.request import ClientRequest


class DelayedResponse:
    """Sends ``reply`` after ``delay_s`` seconds. ``ended`` is called once: before the reply is written, or when the client
    leaves."""

    started = False
    """Nothing is written before the whole reply."""

    def __init__(
        self,
        client: ClientConnection,
        request: ClientRequest,
        reply: Reply,
        delay_s: float,
        ended: Callable[[], None],
    ) -> None:
        self._client = client
        self._request = request
        self._reply = reply
        self._delay_s = delay_s
        self._ended = ended
        self._timer: asyncio.TimerHandle

    def start(self) -> None:
        """Start the delay."""
        self._timer = asyncio.get_running_loop().call_later(self._delay_s, self.shut_down)

    def cancel(self) -> None:
        """The client left."""
        self._timer.cancel()
        self._ended()

    def shut_down(self) -> None:
        """Send the reply now."""
        self.cancel()
        self._client.reply(self._request, self._reply)

    def pause(self) -> None:
        """Does nothing: the reply is written at once."""

    def resume(self) -> None:
        """Does nothing."""
