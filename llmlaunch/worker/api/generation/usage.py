"""Token counts of one API request, by OpenAI's rules: each prompt counts once, however many answers it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.types import GenerationOutput


@dataclass(slots=True)
class Usage:
    """Counts tokens while the answers are generated."""

    prompt_tokens: int
    _answers: dict[int, int] = field(default_factory=dict)
    _cached: dict[int, int] = field(default_factory=dict)
    reasoning_tokens: int | None = None
    """Part of the completion tokens; None if reasoning is not separated."""

    def take(self, index: int, prompt: int, output: GenerationOutput) -> None:
        """Count ``output``, part of answer ``index``, which answers prompt number ``prompt``."""
        self._answers[index] = max(self._answers.get(index, 0), output.completion_tokens)
        # Further answers to a prompt always reuse it; only what the first one reused was saved.
        self._cached.setdefault(prompt, output.cached_tokens)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(self._answers.values())

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were reused from the cache."""
        return sum(self._cached.values())

    def report(self) -> dict[str, Any]:
        """Return OpenAI's ``usage`` object."""
        report: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        if self.reasoning_tokens is not None:
            report["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return report
