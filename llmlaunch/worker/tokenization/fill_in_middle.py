"""How models are asked for the text between a prefix and a suffix: by marks, which are tokens of their own. Pure.

A model that was trained for it has the marks in its vocabulary, and the marks show which form it knows. The forms are those
of the models' own cards and reference code; where these give several, the first one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Part(Enum):
    """What a form has beside marks."""

    PREFIX = "prefix"
    SUFFIX = "suffix"


PREFIX, SUFFIX = Part.PREFIX, Part.SUFFIX


@dataclass(frozen=True, slots=True)
class Family:
    """The marks of several models, with the order of the parts."""

    name: str
    form: tuple[str | Part, ...]
    """Marks by their text, and one PREFIX and one SUFFIX. The answer follows."""
    ends: tuple[str, ...] = ()
    """Tokens that end the answer, beside the marks and the model's own end tokens."""
    beside: tuple[str, ...] = ()
    """Further tokens that tell this family from another one with the same marks."""


_ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>")
"""An instruct model's own end token is that of a turn; the middle ends as texts did in pretraining."""

FAMILIES = (
    Family(
        "Qwen2.5-Coder, Qwen3-Coder, Granite from 3.3 on, CodeGemma",
        ("<|fim_prefix|>", PREFIX, "<|fim_suffix|>", SUFFIX, "<|fim_middle|>"),
        ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>", *_ENDS_OF_TEXT),
    ),
    Family(
        "StarCoder, StarCoder2, Granite Code, StableCode, Refact",
        ("<fim_prefix>", PREFIX, "<fim_suffix>", SUFFIX, "<fim_middle>"),
        ("<fim_pad>", "<file_sep>", "<filename>", "<reponame>", "<repo_name>", *_ENDS_OF_TEXT),
    ),
    Family(
        "SantaCoder",
        ("<fim-prefix>", PREFIX, "<fim-suffix>", SUFFIX, "<fim-middle>"),
        ("<fim-pad>", *_ENDS_OF_TEXT),
    ),
    Family(
        "DeepSeek-Coder, DeepSeek V2 and V3",
        ("<｜fim▁begin｜>", PREFIX, "<｜fim▁hole｜>", SUFFIX, "<｜fim▁end｜>"),
        ("<｜end▁of▁sentence｜>", "<|EOT|>"),
    ),
    Family("CodeLlama", ("▁<PRE>", PREFIX, "▁<SUF>", SUFFIX, "▁<MID>"), ("▁<EOT>",)),
    Family("CodeLlama, in other files", ("<PRE>", PREFIX, "<SUF>", SUFFIX, "<MID>"), ("<EOT>",)),
    Family("Codestral", ("[SUFFIX]", SUFFIX, "[PREFIX]", PREFIX), ("[MIDDLE]",)),
    Family("Seed-Coder", ("<[fim-suffix]>", SUFFIX, "<[fim-prefix]>", PREFIX, "<[fim-middle]>")),
    Family(
        "GLM from 4.5 on",
        ("<|code_prefix|>", PREFIX, "<|code_suffix|>", SUFFIX, "<|code_middle|>"),
        _ENDS_OF_TEXT,
        beside=("<tool_call>",),
    ),
    Family(  # it takes them in a turn of a conversation
        "CodeGeeX4",
        ("<|user|>", "\n", "<|code_suffix|>", SUFFIX, "<|code_prefix|>", PREFIX, "<|code_middle|>", "<|assistant|>", "\n"),
        _ENDS_OF_TEXT,
    ),
    Family("InCoder", (PREFIX, "<|mask:0|>", SUFFIX, "<|mask:1|>", "<|mask:0|>"), ("<|endofmask|>",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FilledForm:
    """A prompt made of prefix and suffix."""

    tokens: list[int]
    prefix_at: int
    """Where the prefix begins in ``tokens``."""


@dataclass(frozen=True, slots=True)
class MiddleForm:
    """The form of one model, as token ids."""

    family: str
    form: tuple[int | Part, ...]
    ends: frozenset[int]
    """The tokens that end the answer, beside the model's own end tokens."""

    @property
    def marks(self) -> int:
        """How many tokens the marks take."""
        return len(self.form) - 2

    def fill(self, opening: Sequence[int], prefix: Sequence[int], suffix: Sequence[int]) -> FilledForm:
        """Return the prompt. ``opening``: the special tokens that every text begins with."""
        tokens, prefix_at = list(opening), 0
        for part in self.form:
            if part is PREFIX:
                prefix_at = len(tokens)
                tokens += prefix
            elif part is SUFFIX:
                tokens += suffix
            elif isinstance(part, int):
                tokens.append(part)
        return FilledForm(tokens, prefix_at)


def form_of(token_of: Callable[[str], int | None]) -> MiddleForm | None:
    """Return the form of a model; None if it has no known marks. ``token_of`` returns a text's token, if it is one."""
    for family in FAMILIES:
        needed = {mark: token_of(mark) for mark in (*family.form, *family.beside) if isinstance(mark, str)}
        found = {mark: token for mark, token in needed.items() if token is not None}
        if len(found) < len(needed):
            continue
        form = tuple(part if isinstance(part, Part) else found[part] for part in family.form)
        named = (*(mark for mark in family.form if isinstance(mark, str) and mark.strip()), *family.ends)
        ends = frozenset(token for mark in named if (token := token_of(mark)) is not None)
        return MiddleForm(family.name, form, ends)
    return None


def kept(prefix: int, suffix: int, room: int) -> tuple[int, int]:
    """Return how many tokens of a prefix's end and of a suffix's beginning are kept, if both may have ``room`` tokens.

    The suffix gets what the prefix leaves, and a quarter at least: what comes before says more about what comes next.
    """
    of_suffix = min(suffix, max(room // 4, room - prefix))
    return min(prefix, room - of_suffix), of_suffix
