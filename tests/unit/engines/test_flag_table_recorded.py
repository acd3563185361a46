"""What we emit, own, read and negate against the flags that the engines' own parsers say they have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.engines import llamacpp, registry, sglang, transformers, vllm
from llmlaunch.engines.flag_table import Flag, FlagTable
from llmlaunch.engines.flags import problems, to_flags
from llmlaunch.engines.types import Launch
from llmlaunch.manifest.types import EngineName, ModelSpec, Source
from llmlaunch.models.facts import ModelKind
from tests.support import record_engine_flags
from tests.unit.engines.test_engines import FACTS, GGUF, request

OWNED = {
    "vllm": vllm._OWNED,
    "sglang": sglang._OWNED,
    "llamacpp": llamacpp._OWNED,
    "transformers": transformers._OWNED,
}
ENGINES = list(OWNED)
EVERYTHING: dict[str, Any] = {
    "max_concurrency": 4,
    "max_model_len": 2048,
    "revision": "main",
    "source": Source.MODELSCOPE,
    "trust_remote_code": True,
    "dtype": "float32",
    "request_timeout_s": 5.0,
}


def table(engine: str) -> FlagTable:
    return registry.get(engine).flags


def own(engine: str) -> list[Flag]:
    """The flags of ``engine`` that the plan does not set."""
    return [flag for flag in table(engine).flags if not flag.is_called(*OWNED[engine])]


def launches(engine: str) -> list[Launch]:
    facts = GGUF if engine == "llamacpp" else FACTS
    parser: dict[str, Any] = {} if engine == "llamacpp" else {"tool_parser": "hermes"}
    kinds = [replace(facts, kind=kind) for kind in ModelKind]
    cases = [request(engine, gpus=gpus, facts=kind, kv_tokens=9) for gpus in (0, 1, 2) for kind in kinds]
    cases.append(request(engine, facts=replace(facts, local=False, path="org/m"), **EVERYTHING, **parser))
    return [registry.get(engine).launch(case) for case in cases]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_flag_that_we_emit_is_there_and_has_its_kind_of_value(engine: str) -> None:
    for launch in launches(engine):
        words = list(launch.argv)
        places = [i for i, word in enumerate(words) if word.startswith("-") and not word[1:2].isdigit()]
        for place, end in zip(places, [*places[1:], len(words)], strict=True):
            if words[place] == "-m" and engine != "llamacpp":  # python -m
                continue
            flag = table(engine).find(words[place]).flag
            assert flag is not None, words[place]
            assert words[place] in flag.names
            given = end - place - 1
            assert flag.several == "*" or given == (1 if flag.kind else 0), words[place:end]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_flag_that_we_own_is_there_and_refused_in_every_spelling(engine: str) -> None:
    found = table(engine)
    for name in OWNED[engine]:
        (flag,) = [flag for flag in found.flags if flag.is_called(name)]
        spellings = {*flag.names, *flag.negatives}
        if found.abbreviates:
            spellings |= {name[:end].rstrip("-") for name in flag.names for end in range(4, len(name))}
        keys = {*spellings, *(spelling.lstrip("-").replace("-", "_") for spelling in spellings)}
        for key in keys:
            if found.find(key).flag in (None, flag):  # else it is the whole name of another one
                said = " ".join(problems({key: "1"}, found, OWNED[engine]))
                assert "set by the plan" in said, key


@pytest.mark.parametrize("engine", ENGINES)
def test_false_writes_the_negative_form_or_is_refused(engine: str) -> None:
    found = table(engine)
    for flag in own(engine):
        for spelling in (*flag.names, *flag.negatives):
            args = {spelling: False}
            said = list(problems(args, found, OWNED[engine]))
            words = to_flags(args, found)
            if flag.negatives:
                assert not said
                wanted = flag.negatives if spelling in flag.names else flag.names
                assert [word for word in words if word in wanted] == list(words) != []
            elif "|" in flag.kind:
                assert not said
                assert words == (spelling, flag.kind.partition("|")[2])
            else:
                assert len(said) == 1
                assert words == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_true_is_a_bare_switch_and_nothing_for_a_flag_that_takes_a_value(engine: str) -> None:
    found = table(engine)
    for flag in own(engine):
        args = {flag.names[0]: True}
        said = list(problems(args, found, OWNED[engine]))
        takes_yes = not flag.kind or flag.several == "?" or "|" in flag.kind
        assert bool(said) is not takes_yes
        if not flag.kind:
            assert to_flags(args, found) == (flag.names[0],)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_has_every_spelling_once_and_known_kinds_only(engine: str) -> None:
    flags = table(engine).flags
    spellings = [name for flag in flags for name in (*flag.names, *flag.negatives)]
    assert len(spellings) == len(set(spellings)) > 25
    assert {flag.kind for flag in flags if "|" not in flag.kind} <= {
        "", "int", "count", "float", "number", "text", "json",
    }  # fmt: skip
    assert {flag.several for flag in flags} <= {"", "*", "2", "?"}


def test_the_tables_are_whole() -> None:
    """As the engines' own parsers had it when they were recorded."""
    flags = table("vllm").flags
    assert sum(bool(flag.negatives) for flag in flags) == 88
    assert len(flags) == 316
    assert len(table("sglang").flags) == 531
    assert len(table("llamacpp").flags) == 254


def test_the_table_of_the_built_in_worker_is_its_own_help() -> None:
    assert table("transformers").text.split("\n")[1:-1] == record_engine_flags.worker_lines()


@pytest.mark.parametrize(
    ("engine", "args", "sequences", "context"),
    [
        ("vllm", {"max_num_seqs": 9, "max_model_len": "4k"}, 9, 4000),
        ("vllm", {"max_num_seq": "9", "max_model": "4K"}, 9, 4096),
        ("vllm", {"max_model_len": "auto"}, 64, 4096),
        ("vllm", {"max_model_len": "0.5k"}, 64, 500),
        ("sglang", {"max_running": "9", "context_length": "4Ki"}, 9, 4096),
        ("sglang", {"max-running-requests": 9, "context_len": "4k"}, 9, 4000),
        ("transformers", {"limit_worker_concurrency": 9, "max_model_len": "2000"}, 9, 2000),
    ],
)
def test_the_plan_reads_a_flag_as_the_engine_does(
    engine: str, args: dict[str, Any], sequences: int, context: int
) -> None:
    model = ModelSpec("m", ("m",), EngineName(engine), engine_args=args)
    assert registry.get(engine).problems(model) == ()
    assert registry.get(engine).sequences(model) == sequences
    assert registry.get(engine).context(model, FACTS) == context
    argv = registry.get(engine).launch(request(engine, engine_args=args)).argv
    assert all(
        argv.count(f"--{flag}") <= 1 for flag in ("max-num-seqs", "max-model-len", "max-running-requests")
    )
