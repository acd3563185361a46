"""Builds a prompt from messages, by the conversation template of a FastChat worker. Pure.

``POST /worker_get_conv_template`` returns the fields of FastChat's ``Conversation`` (fastchat/conversation.py of fschat
0.2.36). How each separator style builds a prompt is defined by ``get_prompt`` in that file. The prompts here are the same
byte for byte, because the models were trained on them. The number of a style is its place in an enumeration. After the
last release a style was inserted in the middle of it, so the meaning of a number depends on the other fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_SYSTEM_PLACEHOLDER = "{system_message}"
_RELEASED = (
    "ADD_COLON_SINGLE", "ADD_COLON_TWO", "ADD_COLON_SPACE_SINGLE", "NO_COLON_SINGLE", "NO_COLON_TWO",
    "ADD_NEW_LINE_SINGLE", "LLAMA2", "CHATGLM", "CHATML", "CHATINTERN", "DOLLY", "RWKV", "PHOENIX", "ROBIN",
    "FALCON_CHAT", "CHATGLM3", "DEEPSEEK_CHAT", "METAMATH", "YUAN2",
)  # fmt: skip
"""Separator styles of fschat 0.2.36; the first is number 1."""
_UNRELEASED = (*_RELEASED[:7], "LLAMA3", *_RELEASED[7:], "GEMMA", "CLLM", "DEFAULT")
"""Separator styles of FastChat's main branch."""
_ONLY_UNRELEASED = ("system_message_vision", "max_image_size_mb")
"""Fields of a conversation that only the main branch has."""


@dataclass(frozen=True, slots=True)
class ConversationTemplate:
    """A worker's conversation template."""

    style: str
    roles: tuple[str, str]
    """The names of the user and of the model."""
    name: str = ""
    system_template: str = _SYSTEM_PLACEHOLDER
    system: str = ""
    """The system message if the client sends none."""
    examples: tuple[tuple[str, str], ...] = ()
    """Example turns before the client's messages: (role, message)."""
    sep: str = ""
    sep2: str = ""
    stops: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Style:
    """How a separator style builds a prompt. Pairs are for even and odd turns.

    Strings may contain ``{system}``, ``{sep}`` and ``{sep2}``.
    """

    head: str = "{system}"
    unless: str = ""
    """"text": no head if the system text is empty; "message": no head if the system message is empty."""
    start: str = ""
    """Always written before the head."""
    lead: tuple[str, str] = ("", "")
    """Before a turn's role."""
    opens: tuple[str, str] = (": ", ": ")
    """Between role and message."""
    ends: tuple[str, str] = ("{sep}", "{sep}")
    """After a message."""
    blank: tuple[str, str] = (":", ":")
    """After the role of a turn without a message, where the answer begins."""
    clean: Callable[[str], str] = str
    """Applied to each message."""
    last: int = 0
    """The number of turns that are used, counted from the end; 0: all."""


def _squeezed(message: str) -> str:
    return message.replace("\r\n", "\n").replace("\n\n", "\n")


_TWO = ("{sep}", "{sep2}")
_LINES = ("\n", "\n")
_COLON_LINES = (":\n", ":\n")
_NOTHING = ("", "")
_LLAMA3_ROLE = "<|end_header_id|>\n\n"
_STYLES = {
    "ADD_COLON_SINGLE": _Style("{system}{sep}"),
    "ADD_COLON_TWO": _Style("{system}{sep}", ends=_TWO),
    "ADD_COLON_SPACE_SINGLE": _Style("{system}{sep}", blank=(": ", ": ")),
    "ADD_NEW_LINE_SINGLE": _Style("{system}{sep}", "text", opens=_LINES, blank=_LINES),
    "NO_COLON_SINGLE": _Style(opens=_NOTHING, blank=_NOTHING),
    "NO_COLON_TWO": _Style(opens=_NOTHING, ends=_TWO, blank=_NOTHING),
    "RWKV": _Style(ends=("\n\n", "\n\n"), clean=_squeezed),
    "CHATML": _Style("{system}{sep}\n", "text", opens=_LINES, ends=("{sep}\n", "{sep}\n"), blank=_LINES),
    "CHATGLM3": _Style(unless="message", opens=_LINES, ends=_NOTHING, blank=_NOTHING),
    "CHATINTERN": _Style(lead=("<s>", ""), opens=(":", ":"), ends=("{sep}\n", "{sep2}\n")),
    "DOLLY": _Style(opens=_COLON_LINES, ends=("{sep}", "{sep2}\n\n"), blank=_COLON_LINES),
    "PHOENIX": _Style(opens=(": <s>", ": <s>"), ends=("</s>", "</s>"), blank=(": <s>", ": <s>")),
    "ROBIN": _Style("{system}{sep}", opens=_COLON_LINES, blank=_COLON_LINES),
    "FALCON_CHAT": _Style("{system}{sep}", "message"),
    "METAMATH": _Style(
        "{system}{sep}", "text", opens=(":\n", ": {sep2}"), ends=("{sep}", ""), blank=(":\n", ": {sep2}")
    ),
    "DEEPSEEK_CHAT": _Style(ends=_TWO),
    "LLAMA3": _Style(
        unless="message",
        start="<|begin_of_text|>",
        lead=("<|start_header_id|>", "<|start_header_id|>"),
        opens=(_LLAMA3_ROLE, _LLAMA3_ROLE),
        ends=("<|eot_id|>", "<|eot_id|>"),
        blank=(_LLAMA3_ROLE, _LLAMA3_ROLE),
        clean=str.strip,
    ),
    "GEMMA": _Style(
        "", start="<bos>", lead=("<start_of_turn>", "<start_of_turn>"), opens=_LINES, blank=_LINES
    ),
    "CLLM": _Style("{system}{sep}", ends=_TWO, last=2),
    "DEFAULT": _Style("{system}\n", ends=_LINES),
}  # fmt: skip


def parse(conv: object) -> ConversationTemplate:
    """Parse the field ``conv`` of a worker's response. Raises ValueError with the reason if it cannot be used."""
    if not isinstance(conv, dict):
        raise ValueError("it has no conversation template")
    styles = _UNRELEASED if any(name in conv for name in _ONLY_UNRELEASED) else _RELEASED
    number = conv.get("sep_style")
    if not isinstance(number, int) or not 1 <= number <= len(styles):
        raise ValueError(f"its template has the separator style {number!r}, which is not known")
    stops = conv.get("stop_str")
    return ConversationTemplate(
        style=styles[number - 1],
        roles=(_role(conv, 0), _role(conv, 1)),
        name=_text(conv.get("name")),
        system_template=_text(conv.get("system_template", _SYSTEM_PLACEHOLDER)),
        system=_text(conv.get("system_message")),
        examples=tuple((_text(role), _text(message)) for role, message in _pairs(conv.get("messages"))),
        sep=_text(conv.get("sep")),
        sep2=_text(conv.get("sep2")),
        stops=tuple(s for s in _list([stops] if isinstance(stops, str) else stops) if _text(s)),
        stop_token_ids=tuple(t for t in _list(conv.get("stop_token_ids")) if type(t) is int),
    )


def _role(conv: dict[str, Any], which: int) -> str:
    roles = conv.get("roles")
    if not isinstance(roles, list) or len(roles) < 2:
        raise ValueError("its template does not name two roles")
    return _text(roles[which])


def _pairs(messages: object) -> Sequence[tuple[object, object]]:
    rows = _list(messages)
    if not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ValueError("its template has messages that are not pairs")
    return [(row[0], row[1]) for row in rows]


def _list(value: object) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"its template holds {value!r} where a list belongs")
    return value or []


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"its template holds {value!r} where a text belongs")
    return value


def prompt(template: ConversationTemplate, system: str | None, turns: Sequence[tuple[bool, str]]) -> str:
    """The prompt for ``turns``, which are (is the user's, message). It ends with the role of the answer.

    ``system``: None: the template's own system message.
    """
    message = template.system if system is None else system
    text = template.system_template.replace(_SYSTEM_PLACEHOLDER, message)
    user, model = template.roles
    messages = [
        *template.examples,
        *((user if by_user else model, content) for by_user, content in turns),
        (model, ""),
    ]
    special = _SPECIAL.get(template.style)
    if special is not None:
        return special(template, text, message, messages)
    style = _STYLES[template.style]
    names = {"system": text, "sep": template.sep, "sep2": template.sep2}
    needed = {"text": text, "message": message}.get(style.unless, "always")
    parts = [style.start, style.head.format(**names) if needed else ""]
    opens, ends, blank = (
        tuple(s.format(**names) for s in pair) for pair in (style.opens, style.ends, style.blank)
    )
    for i, (role, content) in enumerate(messages[-style.last :]):
        odd = i % 2
        parts.append(style.lead[odd] + role)
        parts.append(opens[odd] + style.clean(content) + ends[odd] if content else blank[odd])
    return "".join(parts)


_Messages = Sequence[tuple[str, str]]


def _llama2(template: ConversationTemplate, text: str, message: str, messages: _Messages) -> str:
    """The first message follows the system text inside its [INST]; roles alternate, whatever the turns say."""
    parts = [text if message else "[INST] "]
    for i, (_, content) in enumerate(messages):
        tag = template.roles[i % 2]
        if not content:
            parts.append(tag)
        elif i == 0:
            parts.append(content + " ")
        else:
            parts.append(f"{tag} {content}{(template.sep, template.sep2)[i % 2]}")
    return "".join(parts)


def _chatglm(template: ConversationTemplate, text: str, message: str, messages: _Messages) -> str:
    """Rounds are numbered, from 1 for chatglm2 and from 0 for others."""
    sep, first = template.sep, int(template.name == "chatglm2")
    parts = [text + sep if text else ""]
    for i, (role, content) in enumerate(messages):
        if i % 2 == 0:
            parts.append(f"[Round {i // 2 + first}]{sep}")
        parts.append(f"{role}：{content}{sep}" if content else f"{role}：")
    return "".join(parts)


def _yuan2(template: ConversationTemplate, text: str, message: str, messages: _Messages) -> str:
    """There are no roles. The characters of ``<n>`` are stripped from the end, as FastChat does."""
    parts = [
        text + template.sep2 if message else "",
        *(content + "<n>" for _, content in messages if content),
    ]
    return "".join(parts).rstrip("<n>") + template.sep


_SPECIAL: dict[str, Callable[[ConversationTemplate, str, str, _Messages], str]] = {
    "LLAMA2": _llama2,
    "CHATGLM": _chatglm,
    "YUAN2": _yuan2,
}
