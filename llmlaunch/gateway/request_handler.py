"""Decides what answers a complete request, and does what is due when it has ended."""

from __future__ import annotations

from llmlaunch.gateway import errors
from llmlaunch.gateway.client_address import ClientAddresses
from llmlaunch.gateway.endpoints import Endpoints
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.exchange.exchange import Exchange, ExchangeContext
from llmlaunch.gateway.http1.body_memory import BodyMemory
from llmlaunch.gateway.http1.client_connection import ClientConnection, Responder
from llmlaunch.gateway.http1.delayed_response import DelayedResponse
from llmlaunch.gateway.limits.admission import Admission
from llmlaunch.gateway.limits.api_key import UNLIMITED
from llmlaunch.gateway.limits.failed_keys import DELAY_S, FailedKeys, WrongKeyAction
from llmlaunch.gateway.observe.outcome import CLIENT_LEFT, RequestOutcome
from llmlaunch.gateway.observe.recorder import RequestRecorder
from llmlaunch.gateway.paths import EndpointKind
from llmlaunch.gateway.payload.model_field import InvalidBody
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.target import target

_PROXY = EndpointKind.PROXY
_PROXIED = frozenset((_PROXY, EndpointKind.CHECK, EndpointKind.RESPONSE))


class RequestCloser:
    """Releases memory, settles limits and records the outcome when a request has ended."""

    def __init__(self, bodies: BodyMemory, admission: Admission, recorder: RequestRecorder) -> None:
        self._bodies = bodies
        self._admission = admission
        self._recorder = recorder

    def ended(self, outcome: RequestOutcome, quiet: bool = False) -> None:
        """Close one request. ``quiet``: see ``RequestRecorder.record``."""
        request = outcome.request
        if request.reserved:
            self._bodies.release(request)
        if request.estimate is not None:
            answered = outcome.status in (200, CLIENT_LEFT)
            self._admission.settle(
                request, answered=answered, tokens=outcome.tokens, counted=outcome.counted_tokens
            )
        self._recorder.record(outcome, quiet)


class RequestHandler:
    """Handles the requests of one gateway process: its own answers at once, all others by an ``Exchange``."""

    def __init__(
        self,
        exchanges: ExchangeContext,
        endpoints: Endpoints,
        admission: Admission,
        addresses: ClientAddresses,
        closer: RequestCloser,
    ) -> None:
        self.failed_keys = FailedKeys()
        self._exchanges = exchanges
        self._endpoints = endpoints
        self._admission = admission
        self._addresses = addresses
        self._closer = closer
        self._now = exchanges.now

    def respond(self, client: ClientConnection, request: ClientRequest) -> Responder | None:
        """Answer ``request``; or return what will answer it later. See ``client_connection.Application``."""
        if request.reply is not None:
            reply = request.reply
        elif request.endpoint.kind is _PROXY or request.endpoint.kind in _PROXIED:
            found = self._find_model(request)
            if isinstance(found, str):
                own = None if request.endpoint.own_reply is None else self._own_reply(request, found)
                if own is None:
                    return Exchange(self._exchanges, client, request, found)
                reply = own
            else:
                reply = found
        else:
            reply = self._endpoints.answer(request)
        if reply.status == 401:
            return self._wrong_key(client, request, reply)
        self._answer(client, request, reply)
        return None

    def _find_model(self, request: ClientRequest) -> str | Reply:
        """The model whose replicas have to answer, or the reply that refuses the request."""
        try:
            model = target(request, self._exchanges.router.table)
        except InvalidBody as error:
            return errors.bad_request(error.message, error.param)
        if model is None:
            return errors.response_not_found(request.endpoint.name)
        if request.api_key.limits is UNLIMITED:
            return model
        return self._admission.admit(request, model, self._now()) or model

    def _own_reply(self, request: ClientRequest, model: str) -> Reply | None:
        """The reply to a request that needs no replica; None: it needs one, or its model is not served."""
        answer = request.endpoint.own_reply
        if answer is None or model not in self._exchanges.router.table.serving:
            return None
        try:
            return answer(request.body)
        except InvalidBody as error:
            return errors.bad_request(error.message, error.param)

    def _answer(
        self, client: ClientConnection, request: ClientRequest, reply: Reply, quiet: bool = False
    ) -> None:
        self._record(client, request, reply, quiet)
        client.reply(request, reply)

    def _record(self, client: ClientConnection, request: ClientRequest, reply: Reply, quiet: bool) -> None:
        outcome = RequestOutcome(request, reply.status, self._now() - request.received, client.peer)
        self._closer.ended(outcome, quiet)

    def _wrong_key(
        self, client: ClientConnection, request: ClientRequest, reply: Reply
    ) -> DelayedResponse | None:
        """Send ``reply`` at once; or late and without an access log line, if the address had many wrong keys."""
        address = self._addresses.of(client.peer, request)
        action, source = self.failed_keys.record(address, self._now())
        self._exchanges.metrics.wrong_key(action.value)
        if action is WrongKeyAction.DELAY:

            def ended() -> None:
                self.failed_keys.release(source)
                self._record(client, request, reply, quiet=True)

            return DelayedResponse(client, request, reply, DELAY_S, ended)
        if action is WrongKeyAction.CLOSE:
            request.keep_alive = False
        self._answer(client, request, reply, quiet=action is WrongKeyAction.CLOSE)
        return None
