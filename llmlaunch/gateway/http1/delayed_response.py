"""An answer that waits before it is given: what a connection has in place of an :class:`Exchange` meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.limits.failed_keys import HOLD_S
from llmlaunch.gateway.request import ClientRequest

if TYPE_CHECKING:
    from llmlaunch.gateway.app import Gateway
    from llmlaunch.gateway.http1.client_connection import ClientConnection


class DelayedResponse:
    """The refusal of a wrong key, ``HOLD_S`` late. ``source``: see ``Noise.release``."""

    started = False
    """Nothing of the answer has been written."""

    def __init__(
        self, gateway: Gateway, client: ClientConnection, request: ClientRequest, reply: Reply, source: str
    ) -> None:
        self._gateway = gateway
        self._client = client
        self._request = request
        self._reply = reply
        self._source = source
        self._timer = gateway.loop.call_later(HOLD_S, self.shut_down)

    def cancel(self) -> None:
        """The client left."""
        self._timer.cancel()
        self._gateway.noise.release(self._source)
        self._gateway.ended(self._request, "", self._reply.status, quiet=True)

    def shut_down(self) -> None:
        """Answer now."""
        self.cancel()
        self._client.reply(self._request, self._reply)

    def pause(self) -> None: ...

    def resume(self) -> None: ...
