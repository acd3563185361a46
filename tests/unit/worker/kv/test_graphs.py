"""Steps that only decode, computed in shapes that repeat, and recorded and replayed by a tape in place of CUDA graphs."""

from __future__ import annotations

import gc
import logging
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmlaunch.worker.kv import graphs, memory
from llmlaunch.worker.kv.graphs import GraphShape, shape_of
from llmlaunch.worker.kv.types import Span
from tests.unit.worker import tiny
from tests.unit.worker.engine.test_batching_histories import HISTORIES, KINDS, QUICK, Play, pool
from tests.unit.worker.tape import TapeRecorder

PROMPTS = {f"r{at}": [5 + (at * 7 + step) % 80 for step in range(2 + 5 * at)] for at in range(5)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape is recorded at its second step, and there are many."""
    monkeypatch.setattr(graphs, "USES_BEFORE_RECORDING", 2)
    monkeypatch.setattr(graphs, "MIN_COLUMNS", 8)


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """That a test expects: a recording that was thrown away leaves right answers and a warning."""
    expected: list[str] = []
    yield expected
    said = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert len(said) == len(expected), said
    assert all(message.startswith(start) for message, start in zip(said, expected, strict=True)), said
    assert not any("\n" in message for message in said)


def answered(model: Any, recorder: Any) -> tiny.Run:
    """All of :data:`PROMPTS`, joining a step apart."""
    run = tiny.Run(tiny.batching(model, rows=4, prompt_tokens=8, recorder=recorder))
    for name, prompt in PROMPTS.items():
        run.add(tiny.request(name, prompt, 20))
        run.step()
    run.finish()
    return run


def expected(model: Any) -> dict[str, list[int]]:
    return {name: tiny.reference(model, prompt, 20) for name, prompt in PROMPTS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_replays_answer_as_generate_does(kind: str) -> None:
    recorder = TapeRecorder()
    model = tiny.model(kind)
    assert answered(model, recorder).tokens == expected(model)
    assert recorder.recordings >= 3
    assert recorder.replays > 10 + graphs.MEASUREMENTS * recorder.recordings


@pytest.mark.parametrize("kind", KINDS)
def test_any_history_with_replays_answers_as_generate_does(kind: str) -> None:
    pool(kind)

    @QUICK
    @given(history=HISTORIES)
    def check(history: dict[str, Any]) -> None:
        Play(kind, history, recorder=TapeRecorder()).check()

    check()


def test_below_float32_replays_are_the_steps_that_they_stand_for() -> None:
    model = tiny.fresh("Llama").to(torch.bfloat16)
    recorder = TapeRecorder()
    answered(model, recorder)
    assert recorder.recordings >= 3
    assert recorder.replays > 10 + graphs.MEASUREMENTS * recorder.recordings


def test_rows_that_nobody_decodes_in_keep_their_columns() -> None:
    """They stand ready for requests that begin alike: tokens that only fill up must not write there."""
    model = tiny.model("Llama")
    recorder = TapeRecorder()
    run = tiny.Run(tiny.batching(model, rows=4, columns=80, recorder=recorder))
    kept = [50 + at % 30 for at in range(30)]
    run.add(tiny.request("beside", [9], 60))
    run.add(tiny.request("kept", kept, 2))
    while "kept" not in run.last:
        run.step()
    stores = [store for layer in run.strategy._cache.layers for store in (layer.keys, layer.values)]
    before, columns = recorder.replays, [store[1, :, :80].clone() for store in stores]
    for name in ("a", "b"):  # in rows 2 and 3: the row between is filled up
        run.add(tiny.request(name, [11] * 4, 16))
    run.finish()
    assert recorder.replays > before
    assert all(torch.equal(store[1, :, :80], kept) for store, kept in zip(stores, columns, strict=True))
    run.add(tiny.request("again", [*kept, 7], 8))
    run.finish()
    assert run.last["again"].cached_tokens == len(kept)
    assert run.tokens["again"] == tiny.reference(model, [*kept, 7], 8)


def test_a_replay_that_is_not_quicker_is_not_used() -> None:
    """It is tried once, and what it took is free again."""
    recorder = TapeRecorder(gain=0.9, growth=memory.GRAPH_BYTES)
    model = tiny.model("Llama")
    run = answered(model, recorder)
    assert run.tokens == expected(model)
    assert run.strategy._graphs is not None
    tried = [uses for uses in run.strategy._graphs._uses.values() if uses >= graphs.USES_BEFORE_RECORDING]
    assert recorder.recordings == len(tried) >= 3
    assert max(tried) > graphs.USES_BEFORE_RECORDING
    assert recorder.replays == recorder.recordings * graphs.MEASUREMENTS


class Refusing(TapeRecorder):
    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recordings += 1
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more of it")


class Stale(TapeRecorder):
    """Its replays give what was in the first step, as a graph does that holds a number of Python's."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recordings += 1
        logits = torch.randn(compute().shape)

        def replay() -> Tensor:
            self.replays += 1
            return logits

        return replay


class LateRow(TapeRecorder):
    """Right for the first token of a step only."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        right = super().record(compute)

        def replay() -> Tensor:
            logits = right().clone()
            logits[1:] = logits[1:].flip(-1)
            return logits

        return replay


@pytest.mark.parametrize(
    ("recorder", "why"),
    [
        (Refusing(), "RuntimeError: CUDA error: operation not permitted when stream is capturing"),
        (Stale(), "a replay gave different logits (by "),
    ],
    ids=["cannot", "is wrong"],
)
def test_what_cannot_be_replayed_is_computed_as_ever(
    recorder: TapeRecorder, why: str, warnings: list[str]
) -> None:
    warnings.append("CUDA graphs are off: " + why)
    model = tiny.model("Llama")
    assert answered(model, recorder).tokens == expected(model)
    assert recorder.recordings == 1


def test_one_shape_that_comes_out_otherwise_ends_all(warnings: list[str]) -> None:
    warnings.append("CUDA graphs are off: a replay gave different logits (by ")
    model = tiny.model("Llama")
    recorder = LateRow()
    wanted = expected(model)
    run = tiny.Run(tiny.batching(model, rows=4, recorder=recorder))
    run.add(tiny.request("r0", PROMPTS["r0"], 20))
    run.finish()
    assert recorder.replays > graphs.MEASUREMENTS, "right as long as there is one token"
    run.add(tiny.request("r1", PROMPTS["r1"], 20))
    run.add(tiny.request("r2", PROMPTS["r2"], 20))
    run.finish()
    known = recorder.replays
    assert recorder.used() == 0
    run.strategy.recover()  # nor is it tried again with a new cache
    run.add(tiny.request("r3", PROMPTS["r3"], 20))
    run.finish()
    assert recorder.replays == known
    assert run.tokens == {name: wanted[name] for name in ("r0", "r1", "r2", "r3")}


def test_rows_are_not_copied_together_where_that_takes_too_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = 2 * 2 * 8 * 4  # keys and values, heads, size, bytes
    monkeypatch.setattr(graphs, "BYTES_PER_GRAPH", 0)
    monkeypatch.setattr(graphs, "GRAPH_BYTES", 2 * token * 2 * 16)
    model = tiny.model("Llama")
    run = tiny.Run(tiny.batching(model, rows=4, recorder=TapeRecorder(growth=0)))
    for name in ("r0", "r1", "r2"):  # the last two go on in rows that are not the first
        run.add(tiny.request(name, PROMPTS[name], 6 if name == "r0" else 40))
    run.finish()
    assert run.strategy._graphs is not None
    scattered = {shape.columns for shape in run.strategy._graphs._recorded if not shape.in_order}
    tried = {shape.columns for shape in run.strategy._graphs._uses if not shape.in_order}
    assert max(tried) > 16
    assert scattered == {size for size in tried if size <= 16}


def test_numbers_of_python_are_found_by_the_tape() -> None:
    """The tape would be no check if it took what a CUDA graph cannot."""
    held = torch.zeros(2)
    with pytest.raises(RuntimeError, match="capturing"):
        TapeRecorder().record(lambda: held + torch.tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="capturing"):
        TapeRecorder().record(lambda: held * float(held.sum()))
    with pytest.raises(RuntimeError, match="capturing"):
        TapeRecorder().record(lambda: held[held > 0])
    replay = TapeRecorder().record(lambda: held + 1)
    held += 5
    assert replay().tolist() == [6, 6]


def test_recording_ends_when_its_memory_is_used_up() -> None:
    recorder = TapeRecorder(growth=memory.GRAPH_BYTES // 2)
    model = tiny.model("Llama")
    assert answered(model, recorder).tokens == expected(model)
    assert recorder.recordings == 2
    assert recorder.replays > 2 * graphs.MEASUREMENTS


def test_after_a_fault_nothing_is_replayed_on_memory_that_is_gone() -> None:
    recorder = TapeRecorder()
    model = tiny.model("Llama")
    wanted = tiny.reference(model, PROMPTS["r2"], 20)
    run = tiny.Run(tiny.batching(model, rows=4, recorder=recorder))
    for name in ("before", "after"):
        known = recorder.recordings
        run.add(tiny.request(name, PROMPTS["r2"], 20))
        run.finish()
        assert recorder.recordings > known
        assert run.tokens[name] == wanted
        gone = weakref.ref(run.strategy._cache)
        gc.disable()
        try:
            run.strategy.recover()
            assert gone() is None  # before the next one is allocated: there may be no room for two
        finally:
            gc.enable()


def test_strict_seeds_are_never_replayed() -> None:
    """How many tokens a shape has depends on the crowd, and with it the rounding."""
    recorder = TapeRecorder()
    run = tiny.Run(tiny.batching(tiny.model("Llama"), strict_seeds=True, recorder=recorder))
    run.add(tiny.request("x", PROMPTS["r1"], 20, temperature=1.0, seed=3))
    run.finish()
    assert len(run.tokens["x"]) == 20
    assert recorder.recordings == 0


def test_below_float32_seeds_are_not_replayed_either() -> None:
    """Before the shape is recorded the same request would be rounded otherwise."""
    recorder = TapeRecorder()
    run = tiny.Run(tiny.batching(tiny.fresh("Llama").to(torch.bfloat16), recorder=recorder))
    run.add(tiny.request("x", PROMPTS["r1"], 20, temperature=1.0, seed=3))
    run.finish()
    assert recorder.recordings == 0
    run.add(tiny.request("y", PROMPTS["r1"], 20, temperature=1.0))
    run.finish()
    assert recorder.replays


def test_the_pacer_learns_from_steps_alone_that_are_like_those_with_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Replays are quicker than what a prompt's piece comes with: beside them prompts would be let in drop by drop."""
    recorder = TapeRecorder()
    strategy = tiny.batching(tiny.model("Llama"), rows=1, recorder=recorder)
    learned: list[int] = []
    monkeypatch.setattr(strategy._prefill, "observe", lambda *_: learned.append(recorder.replays))
    run = tiny.Run(strategy)
    run.add(tiny.request("x", PROMPTS["r0"], 40))
    plain = 0
    while strategy.busy:
        before = recorder.replays
        run.step()
        plain += recorder.replays == before
    assert recorder.replays > 20
    assert len(learned) == plain > 4


def decodes(chance: random.Random, rows: int, columns: int) -> Iterator[Span]:
    for row in sorted(chance.sample(range(rows), chance.randint(1, rows))):
        yield Span(f"r{row}", row, chance.randrange(columns), (7,), samples=True, prompt=False)


@given(seed=st.integers(), rows=st.integers(1, 70), columns=st.integers(1, 5000))
def test_shapes_hold_their_steps_and_are_few(seed: int, rows: int, columns: int) -> None:
    chance = random.Random(seed)
    found: set[GraphShape] = set()
    for _ in range(20):
        spans = list(decodes(chance, rows, columns))
        shape = shape_of(spans, rows, columns)
        assert shape is not None
        found.add(shape)
        assert len(spans) <= shape.tokens <= min(2 * len(spans) - 1, rows)
        assert all(span.start < shape.columns for span in spans)
        assert shape.columns <= columns
        assert shape.in_order == all(span.row < shape.tokens for span in spans)
    assert len({shape.tokens for shape in found}) <= 8


@pytest.mark.parametrize(
    "span",
    [
        Span("piece", 1, 4, (7, 8), samples=False, prompt=True),
        Span("piece of one", 1, 4, (7,), samples=False, prompt=True),
        Span("end", 1, 4, (7, 8), samples=True, prompt=True),
    ],
    ids=lambda span: span.request_id,
)
def test_steps_with_pieces_of_prompts_have_no_shape(span: Span) -> None:
    decode = Span("r", 0, 4, (7,), samples=True, prompt=False)
    assert shape_of([decode], 4, 100) is not None
    assert shape_of([decode, span], 4, 100) is None
