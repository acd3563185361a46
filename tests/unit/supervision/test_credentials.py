"""Who gets which of a deployment's tokens."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.controller import grants, wire
from llmlaunch.controller.grants import Grant, Role
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.credentials import TOKEN_VARIABLE, credentials

SECRET = "the-secret-of-a-deployment"
WORKER = ProcessSpec(
    "w-1", Component.WORKER, ("serve",), {}, "127.0.0.1", 21002, "http://127.0.0.1:21002", names=("m", "n")
)


def granted(spec: ProcessSpec) -> Grant | None:
    token = credentials(SECRET, spec).get(TOKEN_VARIABLE)
    return grants.read(SECRET, token) if token is not None else None


def test_only_the_controller_knows_the_secret() -> None:
    assert granted(replace(WORKER, component=Component.CONTROLLER)) == grants.OWNER
    assert granted(replace(WORKER, component=Component.API)) == Grant(Role.GATEWAY)
    for spec in (WORKER, replace(WORKER, self_registering=True), replace(WORKER, component=Component.API)):
        assert SECRET not in str(credentials(SECRET, spec))


def test_a_token_is_for_one_address_and_its_names() -> None:
    own = granted(replace(WORKER, self_registering=True))
    assert own == Grant(Role.REPLICA, WORKER.address, ("m", "n"))


def test_an_engine_that_is_registered_by_the_supervisor_gets_none() -> None:
    assert credentials(SECRET, WORKER) == {}


def test_the_name_of_the_variable_is_the_wires() -> None:
    assert TOKEN_VARIABLE == wire.TOKEN_VARIABLE
