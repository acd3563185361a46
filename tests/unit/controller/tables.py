"""Tables of workers, and what happens to them, for the registry's tests."""

from __future__ import annotations

from typing import Any

from llmlaunch.controller import registry
from llmlaunch.controller.table import RegisteredWorker, Table, empty

A = "http://10.0.0.1:21002"


B = "http://10.0.0.2:21002"


NAMES = [f"http://10.0.0.{i}:1" for i in range(4)]


def worker(
    name: str = A, now: float = 0.0, models: tuple[str, ...] = ("m",), **fields: Any
) -> RegisteredWorker:
    return RegisteredWorker(name=name, model_names=models, last_seen=now, **fields)


def table(*workers: RegisteredWorker, now: float = 0.0) -> Table:
    result = empty(now)
    for item in workers:
        result = registry.register(result, item)
    return result


def run(start: Table, seconds: float, every: float = 1.0) -> Table:
    """Let time pass from the last tick on, ticking as the controller does."""
    now, end = start.ticked_at, start.ticked_at + seconds
    while now < end:
        now = min(now + every, end)
        start = registry.tick(start, now)
    return start


def apply(t: Table, message: tuple[str, str, Any], now: float) -> Table:
    verb, name, value = message
    match verb:
        case "register":
            return registry.register(t, worker(name, now, (value,)))
        case "heartbeat":
            return registry.heartbeat(t, name, value, now)[0]
        case "unregister":
            return registry.unregister(t, name)[0]
        case "drain":
            return registry.drain(t, name, now)[0]
        case "report":
            return registry.report(t, "g", {name: value}, now)
        case "expect":
            return registry.expect(t, [value])
    return registry.tick(t, now)
