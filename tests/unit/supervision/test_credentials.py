"""Who gets which of a deployment's tokens."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.common.variables import TOKEN, WORKER_KEYS
from llmlaunch.controller import tokens
from llmlaunch.controller.tokens import Role, TokenScope
from llmlaunch.engines import registry
from llmlaunch.planning.environment import OURS, looks_secret
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.credentials import credentials, key_of

SECRET = "the-secret-of-a-deployment"
WORKER = ProcessSpec(
    "w-1", Component.WORKER, ("serve",), {}, "127.0.0.1", 21002, "http://127.0.0.1:21002", names=("m", "n")
)


def granted(spec: ProcessSpec) -> TokenScope | None:
    token = credentials(SECRET, spec).get(TOKEN)
    return tokens.scope_of(SECRET, token) if token is not None else None


def test_only_the_controller_knows_the_secret() -> None:
    assert granted(replace(WORKER, component=Component.CONTROLLER)) == tokens.OWNER
    assert granted(replace(WORKER, component=Component.API)) == TokenScope(Role.GATEWAY)
    for spec in (WORKER, replace(WORKER, self_registering=True), replace(WORKER, component=Component.API)):
        assert SECRET not in str(credentials(SECRET, spec))


def test_a_token_is_for_one_address_and_its_names() -> None:
    own = granted(replace(WORKER, self_registering=True))
    assert own == TokenScope(Role.REPLICA, WORKER.address, ("m", "n"))


def test_an_engine_that_is_registered_by_the_supervisor_gets_none() -> None:
    assert credentials(SECRET, WORKER) == {}


def test_an_engine_that_can_be_told_a_key_gets_the_one_that_the_gateway_derives() -> None:
    spec = replace(WORKER, key_variable="VLLM_API_KEY")
    gateway = credentials(SECRET, replace(WORKER, component=Component.API))
    key = tokens.worker_key(gateway[WORKER_KEYS], spec.address)
    assert credentials(SECRET, spec) == {"VLLM_API_KEY": key}
    assert key_of(SECRET, spec) == key
    assert key_of(SECRET, WORKER) == ""


def test_what_is_handed_over_is_passed_on_to_nobody() -> None:
    """A deployment that is started inside another one's process must not inherit its keys."""
    own = {TOKEN, WORKER_KEYS, registry.get("transformers").key_variable}
    assert own < OURS
    for name in ("vllm", "llamacpp"):
        assert looks_secret(registry.get(name).key_variable)
