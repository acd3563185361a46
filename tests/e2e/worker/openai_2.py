"""A program with openai's client library of version 2, which puts streams together in its own way. Prints what it got as JSON.

Run as ``python openai_2.py BASE_URL`` with that library first on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai

MODEL = "tiny"
ASK: Any = [{"role": "user", "content": "Turn left, then right."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "turn",
        "description": "Turn around.",
        "parameters": {"type": "object", "properties": {"to": {"type": "string", "enum": ["left", "right"]}}},
    },
}
CALLS = "".join(
    f'<tool_call>\n{{"name": "turn", "arguments": {{"to": "{to}"}}}}\n</tool_call>\n'
    for to in ("left", "right")
).rstrip()


def calls_of(message: Any) -> list[list[str]]:
    return [[call.function.name, call.function.arguments] for call in message.tool_calls or ()]


def main(base_url: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    rules: Any = {
        "model": MODEL, "messages": ASK, "tools": [TOOL], "max_tokens": 200, "extra_body": {"guided_choice": [CALLS]},
    }  # fmt: skip
    first = client.chat.completions.create(**rules).choices[0]
    with client.chat.completions.stream(**rules) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "done"}
        for call in first.message.tool_calls or ()
    ]
    history: Any = [*ASK, first.message, *results]
    second = client.chat.completions.create(
        model=MODEL, messages=history, tools=[TOOL], max_tokens=60, extra_body={"guided_choice": ["I did."]}
    ).choices[0]
    print(
        json.dumps(
            {
                "version": openai.__version__,
                "whole": calls_of(first.message),
                "finish": first.finish_reason,
                "streamed": calls_of(streamed.message),
                "streamed_finish": streamed.finish_reason,
                "second": second.message.content,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
