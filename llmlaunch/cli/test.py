"""``llmlaunch test``: one message through the endpoint; the exit code says whether an answer came."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from llmlaunch.cli.deploy.select import FILE, NAME, complete_model, timeout_option

if TYPE_CHECKING:
    from llmlaunch.cli.talk.endpoint import Endpoint, RequestError

TIMEOUT_S = 120.0
_NO_CHAT = (400, 404, 405, 422, 501)
"""What engines answer to a chat with a model that only embeds: 400 the built-in one, 404 vLLM and Infinity, 501 llama-server."""


def test(
    model: str = typer.Argument(
        help="A name that the deployment serves.", metavar="MODEL", autocompletion=complete_model
    ),
    message: str = typer.Option("Say hello in one short sentence.", "-m", "--message", help="What to say."),
    file: str | None = FILE,
    name: str | None = NAME,
    api_base: str | None = typer.Option(None, "--api-base", help="Another endpoint.", metavar="URL"),
    timeout: float | None = timeout_option(f"Give up after S seconds (default {TIMEOUT_S:g}); exit code 4."),
) -> None:
    """Send one message and print the answer.

    An embedding model embeds it. Exit code 0 only if an answer came that is not empty. The key comes from LLMLAUNCH_API_KEY, else from the
    deployment's own keys, else from OPENAI_API_KEY.
    """
    from llmlaunch.cli.talk.endpoint import find

    endpoint = find(file, name, api_base, timeout_s=timeout or TIMEOUT_S)
    began = time.monotonic()
    typer.echo(ask(endpoint, model, message))
    typer.echo(f"({model}: {time.monotonic() - began:.1f} s)", err=True)


def ask(endpoint: Endpoint, model: str, message: str) -> str:
    """The answer of ``model`` in words. Raises RequestError when there is none."""
    from llmlaunch.cli.talk.endpoint import RequestError
    from llmlaunch.common.terminal_text import visible

    body = {"model": model, "messages": [{"role": "user", "content": message}], "max_tokens": 64}
    try:
        text = _text(endpoint.post("/chat/completions", body))
    except RequestError as error:
        if error.status not in _NO_CHAT:
            raise
        return _embedded(endpoint, model, message, error)
    if not text.strip():
        raise RequestError(f"{model} answered, with an empty text")
    return visible(text.strip())


def _with_names(refusal: RequestError, endpoint: Endpoint, model: str) -> RequestError:
    from llmlaunch.cli.talk.endpoint import RequestError, name_hint
    from llmlaunch.errors import DeadlineError

    try:
        names = endpoint.names()
    except (RequestError, DeadlineError):
        return refusal
    return (
        refusal if names is None else RequestError(refusal.message, status=404, hint=name_hint(model, names))
    )


def _embedded(endpoint: Endpoint, model: str, message: str, refusal: RequestError) -> str:
    """Perhaps it embeds. When it does not do that either, the first refusal is the one to tell."""
    from llmlaunch.cli.talk.endpoint import RequestError

    try:
        answer = endpoint.post("/embeddings", {"model": model, "input": message})
        vector = answer["data"][0]["embedding"]
    except (RequestError, LookupError, TypeError):
        raise (_with_names(refusal, endpoint, model) if refusal.status == 404 else refusal) from None
    if not vector or not any(vector):
        raise RequestError(f"{model} answered, with an empty embedding")
    numbers = ", ".join(f"{x:.4f}" for x in vector[:4])
    return f"an embedding of {len(vector)} numbers: {numbers}, …"


def _text(answer: Any) -> str:
    from llmlaunch.cli.talk.endpoint import RequestError

    try:
        message = answer["choices"][0]["message"]
        return str(message.get("content") or message.get("reasoning_content") or "")
    except (LookupError, TypeError, AttributeError):
        raise RequestError("the answer is not a chat completion") from None
