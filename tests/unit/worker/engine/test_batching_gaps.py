"""A long prompt that arrives does not stall those who are being answered: counted in ordinary steps, by a clock that
only the model moves."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from llmlaunch.worker.engine import batching
from tests.unit.worker import tiny

LONG = 4000
MOST_STEPS = 3


@dataclass
class Machine:
    """What a pass costs, in milliseconds: reading the weights once, computing each token, and looking at what stands before it."""

    weights: float
    token: float
    column: float
    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now

    def charge(self, model: Any, _: Any, arguments: dict[str, Any]) -> None:
        tokens = arguments["input_ids"].shape[1]
        seen = int(arguments["position_ids"].sum())
        self.now += (self.weights + tokens * self.token + seen * self.column) / 1000


def gaps(machine: Machine, talkers: int, warm: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """The longest time between two tokens of a stream while a long prompt is read, and the ordinary one."""
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=machine.perf_counter))
    model = tiny.fresh("Llama", hidden_size=8, num_hidden_layers=1, max_position_embeddings=8192)
    hook = model.register_forward_pre_hook(machine.charge, with_kwargs=True)
    run = tiny.Run(tiny.batching(model, rows=talkers + 2, columns=6000))
    if warm:  # it has served before
        run.add(tiny.request("before", [7] * 40, 3))
        run.finish()
    for at in range(talkers):
        run.add(tiny.request(f"talker {at}", [9 + at] * 5, 5000))
    last: dict[str, float] = {}
    ordinary: list[float] = []
    for _ in range(20):
        for name, _piece in run.step():
            if name in last:
                ordinary.append(machine.now - last[name])
            last[name] = machine.now
    run.add(tiny.request("reader", [3 + at % 90 for at in range(LONG)], 2))
    longest, steps = 0.0, 0
    while "reader" not in run.last:
        steps += 1
        for name, _piece in run.step():
            if name in last:
                longest = max(longest, machine.now - last[name])
                last[name] = machine.now
    assert steps > 5, "the prompt came in pieces"
    hook.remove()
    return longest, statistics.median(ordinary)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("talkers", [1, 8])
@pytest.mark.parametrize(
    "machine",
    [
        pytest.param((10, 1, 0.0), id="small CPU"),
        pytest.param((30, 1, 0.0003), id="CPU"),
        pytest.param((400, 1, 0.0002), id="GPU"),
    ],
)
def test_a_long_prompt_costs_running_streams_three_ordinary_steps_at_most(
    machine: tuple[float, float, float], talkers: int, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest, ordinary = gaps(Machine(*machine), talkers, warm, monkeypatch)
    assert longest <= MOST_STEPS * ordinary
