"""The model that a request is for, and the replica, if only one can answer it. Pure."""

from __future__ import annotations

from llmlaunch.controller.response_ids import giver, is_marked
from llmlaunch.gateway.paths import EndpointKind
from llmlaunch.gateway.payload.model_field import model_of, model_of_prompts, referred_to, with_model
from llmlaunch.gateway.payload.multipart_form import boundary_of, model_of_form
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.model_tags import untagged
from llmlaunch.gateway.routing.route_table import RouteTable

_RESPONSES = b"/v1/responses"
_CHECK, _RESPONSE = EndpointKind.CHECK, EndpointKind.RESPONSE  # every request is compared with both


def target(request: ClientRequest, table: RouteTable) -> str | None:
    """The model whose replicas can answer ``request``; None if its path names a response that no replica stores.

    Sets ``request.holder`` and ``request.boundary``, and the body's ``model`` where that is another name of it. Raises InvalidBody.
    """
    found = request.endpoint
    if found.kind is _CHECK:
        return model_of_prompts(request.body)
    if found.kind is _RESPONSE:
        return _of_response(request, found.name, table)
    if found.takes_forms:
        boundary = request.boundary = boundary_of(request.field(b"content-type"))
        return model_of_form(request.body, boundary) if boundary else model_of(request.body)
    name = found.name or model_of(request.body)
    if found.upstream.startswith(_RESPONSES):
        keys = (replica.key for replica in table.serving.get(name, ()))
        request.holder = giver(referred_to(request.body), keys) or ""
    elif found.has_tags and (other := untagged(name, table)) != name:
        request.body = with_model(request.body, other)
        return other
    return name


def _of_response(request: ClientRequest, response: str, table: RouteTable) -> str | None:
    """A served name, allowed to the key, of the replica that stores the ``response`` of that id; None if there is none.

    The ids of some engines do not name their replica. Such a response is found only if there is a single replica.
    """
    replicas = {key: replica for key, replica in table.replicas.items() if not replica.draining}
    key = giver((response,), replicas)
    if key is None and len(replicas) == 1 and not is_marked(response):
        key = next(iter(replicas))
    if key is None:
        return None
    request.holder = key
    return next((name for name in replicas[key].names if request.api_key.limits.allows(name)), None)
