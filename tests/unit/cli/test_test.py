"""``llmlaunch test``: what counts as an answer, from engines that chat and from engines that only embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from llmlaunch.cli import test as command
from llmlaunch.cli.talk.endpoint import Endpoint, RequestError

VECTOR = {"data": [{"embedding": [0.5, -0.25, 0.0, 1.0, 2.0]}]}


class Answers:
    """An endpoint that gives the answers of a table by path; an integer is the status of an error."""

    def __init__(self, chat: object, embeddings: object) -> None:
        self._answers = {"/chat/completions": chat, "/embeddings": embeddings}

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self._answers[path]
        if isinstance(answer, int):
            raise RequestError(f"{path} is answered with {answer}", status=answer)
        return answer

    def names(self) -> list[str]:
        return ["mini"]


def ask(chat: object, embeddings: object, model: str = "mini") -> str:
    return command.ask(cast("Endpoint", Answers(chat, embeddings)), model, "hi")


@pytest.mark.parametrize("status", [400, 404, 405, 422, 501])
def test_a_model_that_only_embeds_is_tested_by_embedding(status: int) -> None:
    """400: the built-in engine; 404: vLLM and Infinity, which have no such path then; 501: llama-server."""
    assert ask(status, VECTOR).startswith("an embedding of 5 numbers: 0.5000, -0.2500")


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_another_refusal_is_told_as_it_is(status: int) -> None:
    with pytest.raises(RequestError, match=f"/chat/completions is answered with {status}"):
        ask(status, VECTOR)


def test_a_name_that_nobody_serves_is_told_with_the_nearest_one() -> None:
    with pytest.raises(RequestError, match="/chat/completions is answered with 404") as refused:
        ask(404, 404, "mnii")
    assert "mini" in (refused.value.hint or "")


def test_an_embedding_of_nothing_is_no_answer() -> None:
    with pytest.raises(RequestError, match="an empty embedding"):
        ask(404, {"data": [{"embedding": [0.0, 0.0]}]})
