"""Which way of writing calls a model has: found in its chat template, or named by ``tool_parser``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmlaunch.common.tool_parsers import AUTO, HARMONY, NONE
from llmlaunch.worker.output.tool_calls import harmony
from llmlaunch.worker.output.tool_calls.gemma_calls import FUNCTION_GEMMA, GEMMA_4
from llmlaunch.worker.output.tool_calls.harmony import HarmonyParser
from llmlaunch.worker.output.tool_calls.json_calls import JsonCalls
from llmlaunch.worker.output.tool_calls.named_json import DEEPSEEK, KIMI, MISTRAL
from llmlaunch.worker.output.tool_calls.parser import CallParser
from llmlaunch.worker.output.tool_calls.python_calls import GEMMA_CODE, LLAMA_4, OLMO_3, PythonList
from llmlaunch.worker.output.tool_calls.types import CallFormat, ToolCallParser, Tools
from llmlaunch.worker.output.tool_calls.xml_calls import (
    DEEPSEEK_V32,
    MINIMAX_M2,
    FunctionTags,
    TaggedCalls,
)

_BARE_JSON = JsonCalls(declared_only=True)
_BARE_PYTHON = PythonList()
_IMPOSED = JsonCalls()


@dataclass(frozen=True, slots=True)
class ToolParser:
    """A family's formats: those with marks, and those that may stand at the beginning of an answer without one.

    ``signs``: texts that only templates of this family contain.
    """

    formats: tuple[CallFormat, ...] = ()
    bare: tuple[CallFormat, ...] = ()
    signs: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """What must be decoded although it may be a special token."""
        return tuple(mark for form in self.formats for mark in form.markers)


_HERMES = (TaggedCalls(), FunctionTags())
_GRANITE = JsonCalls("<|tool_call|>")
_MINIMAX = JsonCalls("<tool_calls>", "</tool_calls>")
_LLAMA_3 = JsonCalls("<|python_tag|>")
_PHI_4 = JsonCalls("functools")

PARSERS: Mapping[str, ToolParser] = {
    "hermes": ToolParser(_HERMES, (_BARE_JSON,)),
    "qwen3_coder": ToolParser(_HERMES, signs=("<function=",)),
    "glm45": ToolParser(_HERMES, signs=("<arg_key>",)),
    "mistral": ToolParser((MISTRAL,), (_BARE_JSON,), signs=("[TOOL_CALLS]",)),
    "llama3_json": ToolParser((_LLAMA_3, FunctionTags()), (_BARE_JSON,), signs=("<|python_tag|>",)),
    "pythonic": ToolParser((LLAMA_4,), (_BARE_PYTHON,), signs=("<|python_start|>",)),
    "olmo3": ToolParser((OLMO_3,), signs=("<function_calls>",)),
    "gemma": ToolParser((GEMMA_CODE, FUNCTION_GEMMA, GEMMA_4), (_BARE_PYTHON,), signs=("<|tool_call>", "<start_function_call>")),
    "granite": ToolParser((_GRANITE, *_HERMES), (_BARE_JSON,), signs=("<|tool_call|>",)),
    "phi4_mini_json": ToolParser((_PHI_4,), (_BARE_JSON,), signs=("functools",)),
    "kimi_k2": ToolParser((KIMI,), signs=("<|tool_call_begin|>",)),
    "deepseek_v3": ToolParser((DEEPSEEK,), signs=("<｜tool▁call▁begin｜>",)),
    "deepseek_v32": ToolParser((DEEPSEEK_V32,), signs=("｜DSML｜",)),
    "minimax": ToolParser((_MINIMAX,), signs=("<tool_calls>",)),
    "minimax_m2": ToolParser((MINIMAX_M2,), signs=("<minimax:tool_call>",)),
}  # fmt: skip
_ANY = ToolParser(
    tuple(dict.fromkeys(form for parser in PARSERS.values() for form in parser.formats)),
    (_BARE_JSON, _BARE_PYTHON),
)
"""For a template that shows no format of its own: whatever the model has learnt."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """How one model writes: ``harmony``, or calls in the formats of ``parser`` (None: calls are not looked for)."""

    parser: ToolParser | None = _ANY
    harmony: bool = False

    def markers(self, *, tools: bool) -> tuple[str, ...]:
        """Strings that must be decoded even if they are special tokens; ``tools``: whether the request offers any."""
        if self.harmony:
            return harmony.MARKERS
        return self.parser.markers if tools and self.parser is not None else ()

    def calls(self, tools: Tools, *, parallel: bool, imposed: bool) -> ToolCallParser | None:
        """A parser for one answer to a request with ``tools``. ``imposed``: structured output made it a list of calls."""
        if imposed:
            return CallParser((), tools, imposed=_IMPOSED, parallel=parallel)
        if self.harmony:
            return HarmonyParser(tools, parallel=parallel)
        if not tools or self.parser is None:
            return None
        return CallParser(self.parser.formats, tools, bare=self.parser.bare, parallel=parallel)


def of_template(template: str, wanted: str = AUTO) -> ModelOutput:
    """How a model with the chat ``template`` writes; ``wanted``: one of TOOL_PARSERS."""
    if wanted == NONE:
        return ModelOutput(None)
    if wanted == HARMONY or (wanted == AUTO and harmony.CHANNEL in template and harmony.MESSAGE in template):
        return ModelOutput(None, harmony=True)
    if wanted != AUTO:
        return ModelOutput(PARSERS[wanted])
    for parser in PARSERS.values():
        if any(sign in template for sign in parser.signs):
            # Fine-tuned models often write Hermes' calls whatever the template says.
            formats = tuple(dict.fromkeys((*parser.formats, *_HERMES)))
            return ModelOutput(ToolParser(formats, parser.bare or (_BARE_JSON,)))
    return ModelOutput(_ANY)
