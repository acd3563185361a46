"""Bodies in Ollama's API become bodies in OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.gateway.ollama import request_translation
from llmlaunch.gateway.ollama.request_translation import chat, embed, embeddings, generate
from llmlaunch.gateway.payload.model_field import InvalidBody

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def chat_body(**more: Any) -> dict[str, Any]:
    return chat({"model": "m", "messages": HELLO, "stream": False, **more}).body


def test_a_plain_chat_is_streamed_with_its_usage() -> None:
    found = chat({"model": "m", "messages": HELLO})
    assert (found.path, found.streams) == (b"/v1/chat/completions", True)
    assert found.body == {
        "model": "m", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    whole = chat({"model": "m", "messages": HELLO, "stream": False, "keep_alive": "5m", "options": None})
    assert (whole.body, whole.streams) == ({"model": "m", "messages": HELLO}, False)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"num_predict": 12, "temperature": 0, "top_p": 0.9, "min_p": 0.1, "top_k": 40, "seed": 7},
         {"max_tokens": 12, "temperature": 0, "top_p": 0.9, "min_p": 0.1, "top_k": 40, "seed": 7}),
        ({"presence_penalty": 1, "frequency_penalty": 0.5, "repeat_penalty": 1.2},
         {"presence_penalty": 1, "frequency_penalty": 0.5, "repetition_penalty": 1.2, "repeat_penalty": 1.2}),
        ({"num_predict": -1, "seed": -1}, {}),
        ({"num_predict": -2}, {}),
        ({"num_predict": 8.0, "top_k": 4.9, "temperature": None}, {"max_tokens": 8, "top_k": 4}),
        ({"stop": ["a", ""]}, {"stop": ["a"]}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": [""]}, {}),
        ({"num_ctx": 4096, "num_gpu": 1, "mirostat": 2, "num_thread": 8, "typical_p": 1, "unheard_of": "x"}, {}),
    ],
)  # fmt: skip
def test_options(options: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = chat_body(options=options)
    assert {key: value for key, value in found.items() if key not in ("model", "messages")} == wanted


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"format": ""}, {}),
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        ({"format": {"type": "object"}},
         {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}}),
        ({"think": True}, {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}),
        ({"think": False}, {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}),
        ({"think": "high"},
         {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True, "thinking": True}}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"tools": []}, {}),
        ({"tools": [{"function": {"name": "f"}}]}, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ],
)  # fmt: skip
def test_what_shapes_an_answer(more: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = chat_body(**more)
    assert {key: value for key, value in found.items() if key not in ("model", "messages")} == wanted


def test_calls_get_ids_and_results_find_their_calls() -> None:
    def call(name: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"n": 1}}, **more}

    said = chat_body(
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": "",
                "thinking": "Hm.",
                "tool_calls": [call("a"), call("b"), call("a")],
            },
            {"role": "tool", "tool_name": "b", "content": "B"},
            {"role": "tool", "tool_name": "a", "content": "A1"},
            {"role": "tool", "content": "A2"},
            {"role": "assistant", "tool_calls": [call("c", id="call_own")]},
            {"role": "tool", "tool_call_id": "call_own", "content": "C"},
            {"role": "tool", "tool_name": "d", "content": "nobody asked"},
        ]
    )["messages"]
    first, second, third = (call["id"] for call in said[1]["tool_calls"])
    assert said[1]["tool_calls"][0] == {
        "id": first, "type": "function", "function": {"name": "a", "arguments": '{"n":1}'},
    }  # fmt: skip
    assert said[1]["reasoning_content"] == "Hm."
    assert [message["tool_call_id"] for message in said[2:5]] == [second, first, third]
    assert said[2]["name"] == "b"
    assert (said[5]["content"], said[6]["tool_call_id"]) == ("", "call_own")
    # Mistral's templates take ids of nine letters and digits alone.
    identities = [first, second, third, said[7]["tool_call_id"]]
    assert len(set(identities)) == 4
    assert all(len(identity) == 9 and identity.isalnum() for identity in identities)


@pytest.mark.parametrize(
    ("arguments", "wanted"), [('{"a": 1}', '{"a": 1}'), (None, "{}"), ({"ä": [None]}, '{"ä":[null]}')]
)
def test_arguments_are_text(arguments: object, wanted: str) -> None:
    calls = [{"function": {"name": "f", "arguments": arguments}}]
    said = chat_body(messages=[*HELLO, {"role": "assistant", "tool_calls": calls}])["messages"]
    assert said[1]["tool_calls"][0]["function"]["arguments"] == wanted


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("/9j/4AAQ", "data:image/jpeg;base64,/9j/4AAQ"),
        ("iVBORw0KGgoAAA", "data:image/png;base64,iVBORw0KGgoAAA"),
        ("UklGRiQA", "data:image/webp;base64,UklGRiQA"),
        ("data:image/gif;base64,R0lGOD", "data:image/gif;base64,R0lGOD"),
    ],
)
def test_images_stand_in_the_content(image: str, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    said = chat_body(messages=[{"role": "user", "content": "See", "images": [image]}])["messages"]
    assert said == [{"role": "user", "content": [{"type": "text", "text": "See"}, part]}]
    asked = generate({"model": "m", "prompt": "", "images": [image]}).body["messages"]
    assert asked == [{"role": "user", "content": [part]}]


def test_parts_of_openais_form_are_kept() -> None:
    part = {"type": "text", "text": "Hello"}
    said = chat_body(messages=[{"role": "user", "content": [part], "images": ["iVBORw0KGgo="]}])["messages"]
    assert [item["type"] for item in said[0]["content"]] == ["text", "image_url"]
    assert chat_body(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [part]


def test_generate_is_a_chat_of_one_message() -> None:
    found = generate({"model": "m", "prompt": "Hi", "system": "Be brief.", "template": "", "context": []})
    assert found.path == b"/v1/chat/completions"
    assert found.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_generate_raw_is_a_completion_that_ends_where_the_context_does() -> None:
    found = generate({"model": "m", "prompt": "<s>Hi", "raw": True, "system": "ignored"})
    assert found.path == b"/v1/completions"
    assert found.body == {
        "model": "m", "prompt": "<s>Hi", "max_tokens": None, "n_predict": -1,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    middle = {"model": "m", "prompt": "a", "suffix": "c", "stream": False, "options": {"num_predict": 5}}
    found = generate(middle)
    assert found.body == {"model": "m", "prompt": "a", "suffix": "c", "max_tokens": 5}


def test_embeddings() -> None:
    wanted = {"model": "m", "input": ["a"], "encoding_format": "float", "truncate_prompt_tokens": -1}
    assert embed({"model": "m", "input": "a"}).body == wanted
    assert embed({"model": "m", "input": ["a"], "truncate": None}).body == wanted
    found = embed({"model": "m", "input": ["a"], "truncate": False, "dimensions": 8.0})
    assert found.body == {"model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 8}
    assert embeddings({"model": "m", "prompt": "a"}).body == wanted


@pytest.mark.parametrize(
    ("body", "field", "idle"),
    [
        ({"messages": []}, "messages", True),
        ({}, "messages", True),
        ({"messages": HELLO}, "messages", False),
        ({"prompt": "", "keep_alive": 0}, "prompt", True),
        ({"prompt": "", "images": ["x"]}, "prompt", False),
        ({"suffix": "x"}, "prompt", False),
    ],
)
def test_what_only_loads_a_model(body: dict[str, Any], field: str, idle: bool) -> None:
    assert request_translation.needs_no_model(body, field) is idle


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"messages": "Hello"}, "messages must be a list"),
        ({"messages": ["Hello"]}, r"messages\[0\] must be an object"),
        ({"messages": [{"content": "x"}]}, r"messages\[0\].role is missing"),
        ({"messages": [*HELLO, {"role": "user", "content": 5}]}, r"messages\[1\].content must be a string"),
        ({"messages": [{"role": "user", "images": [5]}]}, r"messages\[0\].images must be a list of images"),
        ({"messages": [{"role": "assistant", "tool_calls": [5]}]}, "tool_calls must be a list of objects"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "function.name is missing"),
        ({"options": []}, "options must be an object"),
        ({"options": {"temperature": "hot"}}, "options.temperature must be a number"),
        ({"options": {"top_k": True}}, "options.top_k must be a number"),
        ({"options": {"seed": float("inf")}}, "options.seed must be a whole number"),
        ({"options": {"stop": [1]}}, "options.stop must be a string or a list of strings"),
        ({"format": "xml"}, 'format must be "json" or a JSON schema'),
        ({"think": "hard"}, 'think must be true, false, "low", "medium", "high" or "max"'),
        ({"think": ["low"]}, "think must be"),
        ({"tools": {}}, "tools must be a list"),
        ({"tools": ["f"]}, r"tools\[0\] must be an object"),
        ({"stream": "no"}, "stream must be true or false"),
    ],
)
def test_what_is_refused_in_a_chat(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidBody, match=complaint):
        chat({"model": "m", "messages": HELLO, **body})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"template": "{{ .Prompt }}"}, "template cannot be set"),
        ({"context": [1, 2]}, "context is not supported"),
        ({"raw": True, "images": ["x"]}, "images cannot be combined with raw"),
        ({"suffix": "y", "logprobs": True}, "logprobs cannot be combined with raw or suffix"),
        ({"system": 5}, "system must be a string"),
    ],
)
def test_what_is_refused_in_generate(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidBody, match=complaint):
        generate({"model": "m", "prompt": "x", **body})


@pytest.mark.parametrize("given", [5, None, [1], ["a", None]])
def test_what_cannot_be_embedded(given: object) -> None:
    with pytest.raises(InvalidBody, match="input must be a string or a list of strings"):
        embed({"model": "m", "input": given})
