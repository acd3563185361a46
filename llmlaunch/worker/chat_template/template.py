"""One model's chat template: brings each conversation into the form that it takes, and renders it. Thread-safe."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from llmlaunch.worker.chat_template.form import Form, Message, bring, shown_tools, stricter
from llmlaunch.worker.chat_template.probe import find_form


class ChatTemplate:
    """Renders conversations with ``apply``, which takes messages, ``tools`` and the template's other arguments.

    ``source``: the text of the template.
    """

    def __init__(self, apply: Callable[..., str], source: str) -> None:
        self._apply = apply
        self._source = source
        self._forms: dict[bool, Form] = {}
        """Found once: without tools and with tools, for which some models have a template of its own."""
        self._lock = threading.Lock()

    def form(self, *, with_tools: bool) -> Form:
        """The form that the template takes. The first call takes some tens of milliseconds."""
        form = self._forms.get(with_tools)
        if form is None:
            with self._lock:
                if with_tools not in self._forms:
                    self._forms[with_tools] = find_form(self._trial, self._source, with_tools=with_tools)
                form = self._forms[with_tools]
        return form

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), **arguments: Any
    ) -> str:
        """The conversation as text. Raises what the template does, if it also refuses stricter forms."""
        form = self.form(with_tools=bool(tools))
        try:
            return self._rendered(messages, tools, form, arguments)
        except Exception:  # a template is a program, and can fail in any way
            for other in stricter(form):
                with contextlib.suppress(Exception):
                    return self._rendered(messages, tools, other, arguments)
            raise

    def _rendered(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        form: Form,
        arguments: dict[str, Any],
    ) -> str:
        answer_follows = bool(arguments.get("add_generation_prompt"))
        brought = bring(messages, tools, form, answer_follows=answer_follows)
        shown = shown_tools(tools, form)
        return self._apply(brought, **(arguments | ({"tools": shown} if shown else {})))

    def _trial(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
        given = {"tools": list(tools)} if tools else {}
        return self._apply(list(messages), add_generation_prompt=True, **given)
