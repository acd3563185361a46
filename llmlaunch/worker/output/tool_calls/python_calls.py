"""Calls as Python.

::

    Llama 3.2, 4    [f(a=1), g(b="x")]       (the whole answer), or between <|python_start|> and <|python_end|>
    Gemma 2, 3      ```tool_code f(a=1) ```
    OLMo 3          <function_calls>f(a=1)</function_calls>

Only calls with literal arguments to declared functions count: nothing is evaluated. Pure.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from llmlaunch.worker.output.tool_calls.cursor import Cursor
from llmlaunch.worker.output.tool_calls.types import Calls, Leave, Reject, Skip, Step, Tools, written

_QUOTES = "\"'"
_BEGIN = re.compile(r"\[\s*(?:([A-Za-z_][\w.]*)\s*(\()?)?")


def scan_calls(at: Cursor, lead: int, tools: Tools) -> Step | None:
    """One call ``f(…)`` at ``lead``."""
    start = at.rest.index("(", lead)
    end = at.value_end(start, _QUOTES)
    if end is None:
        return None
    calls = read(at.rest[lead:end], tools)
    return Reject() if calls is None else Calls(end, calls)


def read(text: str, tools: Tools) -> tuple[tuple[str, str], ...] | None:
    """Names and arguments (JSON text) of all calls in ``text``; None if there is anything else in it."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    found: list[tuple[str, str]] = []
    for statement in body:
        value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
        items = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        for item in items:
            call = _call(item, tools)
            if call is None:
                return None
            found.append(call)
    return tuple(found) or None


def _call(node: ast.expr | None, tools: Tools) -> tuple[str, str] | None:
    if not isinstance(node, ast.Call):
        return None
    if (
        isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and "print" not in tools
        and len(node.args) == 1
    ):
        return _call(node.args[0], tools)  # Gemma prints what the function returns
    name = _declared(ast.unparse(node.func), tools)
    if name is None:
        return None
    properties = tools[name].get("properties")
    positions = list(properties) if isinstance(properties, dict) else []
    if len(node.args) > len(positions) or any(keyword.arg is None for keyword in node.keywords):
        return None
    given = dict(zip(positions, node.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
    try:
        return name, written({key: ast.literal_eval(value) for key, value in given.items()})
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _declared(name: str, tools: Tools) -> str | None:
    """The declared function that ``name`` means: models put modules such as ``default_api.`` before it."""
    if name in tools:
        return name
    last = name.rpartition(".")[2]
    return last if last in tools else None


@dataclass(frozen=True, slots=True)
class PythonList:
    """A list of calls without any mark."""

    markers: tuple[str, ...] = ()

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank()
        if lead == len(at.rest):
            return None
        begin = _BEGIN.match(at.rest, lead)
        if begin is None:
            return Reject()
        if begin[1] is not None and begin[2] is None and begin.end() < len(at.rest):
            return Reject()
        if begin[1] is None and begin.end() < len(at.rest):
            return Reject()
        if begin[2] is not None and _declared(begin[1], tools) is None:
            return Reject()
        end = at.value_end(lead, _QUOTES)
        if end is None:
            return None
        calls = read(at.rest[lead:end], tools)
        return Reject() if calls is None else Calls(end, calls)


@dataclass(frozen=True, slots=True)
class PythonBlock:
    """Lines of calls between ``open`` and ``close``."""

    open: str
    close: str

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.open,)

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        if at.starts(self.close):
            return Leave(len(self.close))
        end = at.find(self.close)
        if end < 0:
            if not at.final:
                return None
            end = len(at.rest)  # the end mark is the model's end token
        if not at.rest[:end].strip():
            return Skip(end) if end else Leave(0)
        calls = read(at.rest[:end], tools)
        return Reject() if calls is None else Calls(end, calls)


LLAMA_4 = PythonBlock("<|python_start|>", "<|python_end|>")
GEMMA_CODE = PythonBlock("```tool_code", "```")
OLMO_3 = PythonBlock("<function_calls>", "</function_calls>")
