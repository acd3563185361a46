"""The engine's thread: one last output for every request, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from llmlaunch.worker.engine.engine import GenerationEngine
from llmlaunch.worker.errors import (
    ApiError,
    DeviceLostError,
    EngineFault,
    OnDeviceLost,
    QueueFull,
    Unavailable,
)
from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.types import EngineLoad, GenerationOutput, Sink
from tests.support.waiting import wait_until
from tests.unit.worker import tiny


class Counting:
    """A strategy without a model: every request gets token after token; faults on demand."""

    mode = "counting"

    def __init__(self) -> None:
        self.answers: dict[str, AnswerBuilder] = {}
        self.fault: Exception | None = None
        self.recovered = 0
        self.refusal: Exception | None = None

    @property
    def busy(self) -> bool:
        return bool(self.answers)

    def add(self, answer: AnswerBuilder) -> None:
        if answer.request.prompt == (0,):
            raise ValueError("not this one")
        self.answers[answer.request.request_id] = answer

    def remove(self, request_id: str) -> None:
        self.answers.pop(request_id, None)

    def step(self) -> list[tuple[str, GenerationOutput]]:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        news = []
        for name, answer in list(self.answers.items()):
            output = answer.push(5, None)
            if output is not None:
                news.append((name, output))
                if output.last:
                    del self.answers[name]
        return news

    def recover(self) -> None:
        assert not self.answers
        if self.refusal is not None:
            raise self.refusal
        self.recovered += 1

    def load(self) -> EngineLoad:
        return EngineLoad(running=len(self.answers))


class Heard:
    """What came of each request."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[GenerationOutput]] = {}

    def sink(self, name: str) -> Sink:
        self.outputs[name] = []
        return self.outputs[name].append

    def over(self, name: str) -> bool:
        return bool(self.outputs[name]) and self.outputs[name][-1].last

    def end(self, name: str) -> GenerationOutput:
        wait_until(lambda: self.over(name), 10, f"{name} ends")
        assert sum(output.last for output in self.outputs[name]) == 1
        return self.outputs[name][-1]


@pytest.fixture
def strategy() -> Counting:
    return Counting()


@pytest.fixture
def heard() -> Heard:
    return Heard()


def started(strategy: Counting, lost: OnDeviceLost) -> GenerationEngine:
    made = GenerationEngine(
        strategy,
        decode=lambda tokens, _: tiny.decode(tokens),
        ends=frozenset(),
        deliver=hand_over,
        lost=lost,
        max_requests=50,
    )
    made.start()
    return made


@pytest.fixture
def engine(strategy: Counting) -> Iterator[GenerationEngine]:
    made = started(strategy, tiny.never_lost)
    yield made
    made.stop()


def hand_over(bundle: list[tuple[Sink, GenerationOutput]]) -> None:
    for sink, output in bundle:
        sink(output)


def submit(
    engine: GenerationEngine, heard: Heard, name: str, new: int = 3, prompt: tuple[int, ...] = (5,)
) -> None:
    engine.submit(tiny.request(name, prompt, new), heard.sink(name))


def test_an_answer_comes_whole(engine: GenerationEngine, heard: Heard) -> None:
    submit(engine, heard, "a", 4)
    assert heard.end("a").completion_tokens == 4
    assert "".join(output.text for output in heard.outputs["a"]) == "5555"
    assert engine.pending == 0


def test_a_cancelled_request_ends_at_once(engine: GenerationEngine, heard: Heard) -> None:
    submit(engine, heard, "a", 10**9)
    wait_until(lambda: heard.outputs["a"], 10)
    engine.cancel("a")
    assert heard.end("a").finish == "cancelled"
    engine.cancel("a")
    engine.cancel("never seen")
    submit(engine, heard, "b")
    heard.end("b")


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (RuntimeError("boom"), EngineFault, 500),
        (MemoryError("no more"), Unavailable, 503),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), Unavailable, 503),
    ],
    ids=str,
)
def test_a_fault_fails_those_it_hit_and_nobody_else(
    engine: GenerationEngine,
    strategy: Counting,
    heard: Heard,
    fault: Exception,
    kind: type[ApiError],
    status: int,
) -> None:
    submit(engine, heard, "a", 10**9)
    submit(engine, heard, "b", 10**9)
    wait_until(lambda: heard.outputs["a"] and heard.outputs["b"], 10)
    strategy.fault = fault
    for name in "ab":
        error = heard.end(name).error
        assert isinstance(error, kind)
        assert error.status == status
    wait_until(lambda: strategy.recovered == 1, 10)
    submit(engine, heard, "c")
    assert heard.end("c").error is None
    assert engine.pending == 0


def test_one_that_cannot_be_taken_fails_alone(engine: GenerationEngine, heard: Heard) -> None:
    submit(engine, heard, "bad", prompt=(0,))
    submit(engine, heard, "good")
    assert isinstance(heard.end("bad").error, EngineFault)
    assert heard.end("good").error is None


def test_too_many_are_refused_and_leave_nothing(engine: GenerationEngine, heard: Heard) -> None:
    for at in range(50):
        submit(engine, heard, f"r{at}", 10**9)
    with pytest.raises(QueueFull):
        submit(engine, heard, "one more")
    assert engine.pending == 50
    for at in range(50):
        engine.cancel(f"r{at}")
    wait_until(lambda: engine.pending == 0, 10)


def test_at_the_end_all_are_told(strategy: Counting, heard: Heard) -> None:
    engine = GenerationEngine(
        strategy, decode=lambda tokens, _: "", ends=frozenset(), deliver=hand_over, lost=tiny.never_lost
    )
    engine.start()
    for at in range(3):
        submit(engine, heard, f"r{at}", 10**9)
    engine.stop()
    for at in range(3):
        assert isinstance(heard.end(f"r{at}").error, Unavailable)
    with pytest.raises(Unavailable):
        submit(engine, heard, "late")


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (DeviceLostError("cuda:0 has failed"), "cuda:0 has failed"),
        (ValueError("odd"), "ValueError: odd"),
    ],
    ids=["lost", "odd"],
)
def test_where_nothing_can_be_computed_any_more_all_are_told_and_the_engine_ends(
    strategy: Counting, heard: Heard, refusal: Exception, message: str
) -> None:
    told: list[DeviceLostError] = []
    engine = started(strategy, told.append)
    for name in "ab":
        submit(engine, heard, name, 10**9)
    wait_until(lambda: heard.outputs["a"] and heard.outputs["b"], 10)
    strategy.refusal = refusal
    strategy.fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    for name in "ab":
        assert isinstance(heard.end(name).error, EngineFault)
    wait_until(lambda: told, 10)
    assert [error.message for error in told] == [message]
    with pytest.raises(Unavailable):
        submit(engine, heard, "late")
    engine.stop()
    assert engine.pending == 0


def test_any_history_ends_every_request_once(
    engine: GenerationEngine, strategy: Counting, heard: Heard
) -> None:
    chance = random.Random(4)
    actions: list[Callable[[str], None]] = [
        lambda name: submit(engine, heard, name, chance.randint(1, 50)),
        lambda name: submit(engine, heard, name, 10**9, prompt=(chance.choice((0, 5)),)),
        lambda name: engine.cancel(chance.choice(sorted(heard.outputs) or ["x"])),
        lambda name: setattr(strategy, "fault", chance.choice((None, RuntimeError("x"), None))),
    ]
    for at in range(400):
        if engine.pending < 50:
            chance.choice(actions)(f"r{at}")
        else:
            engine.cancel(sorted(name for name in heard.outputs if not heard.over(name))[0])
            wait_until(lambda: engine.pending < 50, 10)
    for name in sorted(heard.outputs):
        engine.cancel(name)
    for name in heard.outputs:
        heard.end(name)
    assert engine.pending == 0
