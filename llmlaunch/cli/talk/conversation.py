"""A conversation as a value: its messages, and what the commands typed into it mean. No I/O but ``save`` and ``load``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlaunch.errors import LlmlaunchError, UsageError

COMMANDS = {
    "help": "this list",
    "reset": "forget the conversation",
    "regen": "answer the last message again",
    "remove": "forget the last message and its answer",
    "save FILE": "write the conversation as JSON",
    "load FILE": "go on with a saved conversation",
    "exit": "quit (also Ctrl-D)",
}
"""FastChat's spellings work too: ``!!reset`` is ``/reset``."""

HELP = "\n".join(
    [f"  /{name:<10} {what}" for name, what in COMMANDS.items()]
    + ["  //…         a message that begins with a slash"]
)


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A line that is a command, not a message."""

    verb: str
    argument: str = ""


def parse(line: str) -> ChatCommand | str:
    """What a typed line is: a command, or the text of a message. Raises UsageError for an unknown command."""
    if line.startswith("//"):
        return line[1:]
    mark = next((mark for mark in ("/", "!!") if line.startswith(mark)), None)
    if mark is None:
        return line
    verb, _, argument = line.removeprefix(mark).strip().partition(" ")
    wants_file = {name.split()[0]: " " in name for name in COMMANDS}
    if verb not in wants_file:
        raise UsageError(
            f"unknown command {mark}{verb}", hint="/help lists them; //… sends a line with a slash"
        )
    if wants_file[verb] and not argument.strip():
        raise UsageError(f"/{verb} needs a file: /{verb} FILE")
    return ChatCommand(verb, argument.strip())


@dataclass(slots=True)
class Conversation:
    """Messages in OpenAI's form, beginning with the system message if there is one."""

    model: str
    system: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again with nothing but the system message."""
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def say(self, text: str) -> None:
        """Add a message of the user."""
        self.messages.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Add the model's answer."""
        self.messages.append({"role": "assistant", "content": text})

    def undo(self) -> str | None:
        """Forget the last message of the user and all after it; its text, or None when there was none."""
        for place in range(len(self.messages) - 1, -1, -1):
            if self.messages[place]["role"] == "user":
                text = self.messages[place]["content"]
                del self.messages[place:]
                return text
        return None

    def body(self) -> dict[str, Any]:
        """The request for the next answer."""
        return {"model": self.model, "messages": self.messages, "stream": True, **self.settings}

    def save(self, file: str) -> None:
        """Write it as JSON. Raises LlmlaunchError."""
        try:
            text = json.dumps({"model": self.model, "messages": self.messages}, ensure_ascii=False, indent=2)
            Path(os.path.expanduser(file)).write_text(text + "\n", encoding="utf-8")  # noqa: PTH111
        except OSError as error:
            raise LlmlaunchError(f"{file} cannot be written: {error.strerror}") from None

    def load(self, file: str) -> None:
        """Take the messages of a saved conversation; the model stays. Raises LlmlaunchError, and changes nothing then."""
        try:
            data = json.loads(Path(os.path.expanduser(file)).read_text(encoding="utf-8"))  # noqa: PTH111
        except OSError as error:
            raise LlmlaunchError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise LlmlaunchError(f"{file} is not a saved conversation: it is not JSON") from None
        messages = data.get("messages") if isinstance(data, dict) else data
        if not isinstance(messages, list) or not all(map(_is_message, messages)):
            raise LlmlaunchError(f"{file} is not a saved conversation: it has no list of messages")
        self.messages = [{"role": m["role"], "content": m["content"]} for m in messages]


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in ("system", "user", "assistant")
        and isinstance(value.get("content"), str)
    )
