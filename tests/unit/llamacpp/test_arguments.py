"""llama-server's flags, read by llama.cpp's own parser out of the installed package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmlaunch.engines import registry
from llmlaunch.engines.types import LaunchRequest
from llmlaunch.errors import UsageError
from llmlaunch.llamacpp import arguments
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.facts import ModelFacts, ModelKind

xllamacpp = pytest.importorskip("xllamacpp")
FACTS = ModelFacts("m", "/models/m.gguf", local=True, format="gguf", context_length=4096)


def engine_words(facts: ModelFacts = FACTS, **model: Any) -> Sequence[str]:
    """What the engine starts our program with, behind ``python -m llmlaunch.llamacpp``."""
    spec = ModelSpec("m", ("b", "a"), EngineName.LLAMACPP, **model)
    request = LaunchRequest(
        component="b-1",
        model=spec,
        facts=facts,
        host="127.0.0.1",
        port=21002,
        controller_url="",
        devices=(),
        python="python",
        absent=frozenset({"llama-server"}),
        cores=3,
    )
    engine = registry.get("llamacpp")
    assert engine.problems(spec) == ()
    return engine.launch(request).argv[3:]


def test_what_the_engine_emits() -> None:
    found = arguments.parse(engine_words(max_concurrency=2))
    assert found.model.path == "/models/m.gguf"
    assert found.model_alias == {"a", "b"}
    assert (found.hostnames, found.port, found.endpoint_metrics) == (["127.0.0.1"], 21002, True)
    assert (found.n_parallel, found.n_ctx, found.n_gpu_layers) == (2, 8192, 0)
    assert (found.cpuparams.n_threads, found.cpuparams_batch.n_threads, found.cpuparams.poll) == (3, 3, 0)
    assert found.use_jinja
    assert not found.embedding


def test_kinds() -> None:
    found = arguments.parse(engine_words(replace(FACTS, kind=ModelKind.EMBED)))
    assert (found.embedding, found.n_batch, found.n_ubatch) == (True, 4096, 4096)
    found = arguments.parse(engine_words(replace(FACTS, kind=ModelKind.RERANK)))
    assert (found.embedding, found.pooling_type) == (
        True,
        xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK,
    )
    found = arguments.parse(engine_words(replace(FACTS, projector="mmproj-f16.gguf")))
    assert found.mmproj.path == "/models/mmproj-f16.gguf"
    found = arguments.parse(
        engine_words(replace(FACTS, local=False, path="org/name", files=("m-Q4_K_M.gguf",)))
    )
    assert (found.model.hf_repo, found.model.hf_file) == ("org/name", "m-Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("engine_args", "field", "value"),
    [
        ({"temp": 0.25}, "sampling.temp", 0.25),
        ({"n_predict": 77}, "n_predict", 77),
        ({"cache-type-k": "q8_0"}, "cache_type_k", xllamacpp.ggml_type.GGML_TYPE_Q8_0),
        ({"ub": 64}, "n_ubatch", 64),
        ({"kv_unified": True}, "kv_unified", True),
        ({"no-cont-batching": True}, "cont_batching", False),
        ({"model-draft": "/models/draft.gguf"}, "speculative.draft.mparams.path", "/models/draft.gguf"),
        ({"md": "/models/draft.gguf"}, "speculative.draft.mparams.path", "/models/draft.gguf"),
        ({"pooling": "last"}, "pooling_type", xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST),
        ({"threads": 1, "threads_batch": 2}, "cpuparams_batch.n_threads", 2),
        ({"chat-template": "chatml"}, "chat_template", "chatml"),
        ({"sleep_idle_seconds": 60}, "sleep_idle_seconds", 60),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_engine_args_mean_what_they_mean_to_llama_server(
    engine_args: dict[str, Any], field: str, value: object
) -> None:
    found: Any = arguments.parse(engine_words(engine_args=engine_args))
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


def test_llama_cpps_own_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    monkeypatch.setenv("LLAMA_ARG_N_PREDICT", "5")
    found = arguments.parse(engine_words())
    assert (list(found.api_keys), found.n_predict) == (["secret"], 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-flag"], "invalid argument: --no-such-flag"),
        (["--ctx-size", "many"], "--ctx-size"),
        (["--port"], "expected value for argument"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_llama_cpps_words(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        arguments.parse(["-m", "m.gguf", *words])
    assert said in capfd.readouterr().err


def test_the_check_of_the_library_is_silent(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where llama-server's number is another one than usual."""
    monkeypatch.setattr(arguments, "_USUAL_PROGRAM", 0)
    assert arguments.parse(["-m", "m.gguf", "--metrics"]).endpoint_metrics
    assert capfd.readouterr().err == ""


class NoParams:
    """A ``CommonParams`` that keeps its values elsewhere."""


def test_an_unknown_version_is_refused_instead_of_crashing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def parse() -> str:
        with pytest.raises(arguments.UnknownLibraryError) as caught:
            arguments.parse(["-m", "m.gguf"])
        assert "xllamacpp==" in caught.value.hint
        return caught.value.message

    with monkeypatch.context() as patch:
        patch.setattr(arguments, "_PARSE", "no_such_function")
        assert "parser of flags is not in its library" in parse()
    with monkeypatch.context() as patch:
        patch.setattr(arguments, "_PROGRAMS", 0)
        patch.setattr(arguments, "_USUAL_PROGRAM", 0)
        assert "not read as they should be" in parse()
    other = SimpleNamespace(CommonParams=NoParams, __version__="9", xllamacpp=xllamacpp.xllamacpp)
    monkeypatch.setitem(sys.modules, "xllamacpp", other)
    assert parse() == "xllamacpp 9 cannot be used: its parameters are not where they should be"
