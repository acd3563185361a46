# ruff: noqa: E501 - a transcript on a line each
"""Answers with calls as models write them, and what is in them: several for every format, malformed ones too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TOOLS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"anyOf": [{"type": "string", "enum": ["c", "f"]}, {"type": "null"}]},
        },
    },
    "write_file": {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "content": {"type": "string"},
            "mode": {"$ref": "#/$defs/Mode"},
        },
        "$defs": {"Mode": {"type": "integer"}},
    },
    "search": {
        "type": "object",
        "properties": {
            "filters": {"type": "object"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "exact": {"type": "boolean"},
            "score": {"type": "number"},
        },
    },
    "list_files": {"type": "object", "properties": {}},
    "fs.read-all": {"type": "object", "properties": {"path": {"type": "string"}}},
}


@dataclass(frozen=True)
class Transcript:
    """``parser``: the tool parser, or the one that ``auto`` chooses. ``calls``: names and arguments (str: unparsed)."""

    parser: str
    written: str
    text: str
    calls: tuple[tuple[str, Any], ...] = ()
    thought: str = ""


PARIS = {"city": "Paris"}
CODE = 'def f(x):\n    return {"a": [x, \'</tag>\']}  # "]}'
PARIS_CALL = ("get_weather", PARIS)
LIST_CALL: tuple[str, Any] = ("list_files", {})


def _json(name: str, arguments: Any, key: str = "arguments") -> str:
    return json.dumps({"name": name, key: arguments})


def _same(parser: str, *texts: str) -> list[Transcript]:
    """Answers without a call: text as it was written."""
    return [Transcript(parser, text, text) for text in texts]


HERMES = [
    Transcript("hermes", f"<tool_call>\n{_json('get_weather', PARIS)}\n</tool_call>", "", (PARIS_CALL,)),
    Transcript(
        "hermes",
        f"I will look that up.\n\n<tool_call>\n{_json('get_weather', PARIS)}\n</tool_call>\n"
        f"<tool_call>\n{_json('list_files', {})}\n</tool_call>",
        "I will look that up.\n\n",
        (PARIS_CALL, LIST_CALL),
    ),
    Transcript(
        "hermes",
        f"<tool_call>{_json('write_file', {'path': 'a.py', 'content': CODE})}</tool_call>",
        "",
        (("write_file", {"path": "a.py", "content": CODE}),),
    ),
    Transcript("hermes", '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>', "", (PARIS_CALL,)),
    Transcript("hermes", '<tool_call>{"name": "list_files"}</tool_call>', "", (LIST_CALL,)),
    Transcript("hermes", '<tool_call>{"name": "list_files", "arguments": null}</tool_call>', "", (LIST_CALL,)),
    Transcript("hermes", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>', "", (PARIS_CALL,)),
    Transcript("hermes", "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Paris'}}</tool_call>", "", (PARIS_CALL,)),
    Transcript("hermes", f"<tool_call>{_json('unknown', {'a': 1})}</tool_call>", "", (("unknown", {"a": 1}),)),
    Transcript("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "Par', "", (("get_weather", '{"city": "Par'),)),
    Transcript("hermes", f"<tool_call>{_json('list_files', {})}</tool_call> Done.", " Done.", (LIST_CALL,)),
    Transcript("hermes", f"<tool_call>oops</tool_call> <tool_call>{_json('list_files', {})}</tool_call>", "<tool_call>oops</tool_call> ", (LIST_CALL,)),
    *_same(
        "hermes",
        "<tool_call>nonsense</tool_call>",
        "<tool_call>",
        "<tool_call></tool_call>",
        '<tool_call>{"name": "get_wea',
        '<tool_call>{"city": "Paris"}</tool_call>',
        "A plain answer with {braces}, <tags> and a < b.",
    ),
]  # fmt: skip

QWEN3_CODER = [
    Transcript(
        "qwen3_coder",
        "Let me check.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "Let me check.\n",
        (PARIS_CALL,),
    ),
    Transcript(
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n75\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "<parameter=units>\nnull\n</parameter>\n</function>\n</tool_call>",
        "",
        (("get_weather", {"city": "75", "days": 3, "units": None}),),
    ),
    Transcript(
        "qwen3_coder",
        f"<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n<parameter=content>\n{CODE}\n\n</parameter>\n"
        "<parameter=mode>\n420\n</parameter>\n</function>\n</tool_call>",
        "",
        (("write_file", {"path": "a.py", "content": CODE + "\n", "mode": 420}),),
    ),
    Transcript(
        "qwen3_coder",
        '<tool_call>\n<function=search>\n<parameter=filters>\n{"lang": "de"}\n</parameter>\n<parameter=tags>\n["a", "b"]\n'
        "</parameter>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=score>\n0.5\n</parameter>\n</function>\n</tool_call>",
        "",
        (("search", {"filters": {"lang": "de"}, "tags": ["a", "b"], "exact": True, "score": 0.5}),),
    ),
    Transcript(
        "qwen3_coder",
        "<tool_call>\n<function=list_files>\n</function>\n</tool_call>\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n"
        "</parameter>\n</function>\n</tool_call>",
        "",
        (LIST_CALL, PARIS_CALL),
    ),
    # The outer tag is forgotten at the beginning, as Qwen3-Coder-30B often does.
    Transcript(
        "qwen3_coder",
        "Sure.\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "Sure.\n",
        (PARIS_CALL,),
    ),
    # So is the end of a parameter.
    Transcript(
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n<parameter=days>\n2\n</function>\n</tool_call>",
        "",
        (("get_weather", {"city": "Paris", "days": 2}),),
    ),
    Transcript(
        "qwen3_coder",
        "<tool_call>\n<function=search>\n<parameter=exact>\nmaybe\n</parameter>\n</function>\n</tool_call>",
        "",
        (("search", {"exact": "maybe"}),),
    ),
    *_same(
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nPar",
        "Write <function=name> around it.",
        "<function=not_declared>\n<parameter=a>\n1\n</parameter>\n</function>",
    ),
]

GLM = [
    Transcript(
        "glm45",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
        "",
        (PARIS_CALL,),
    ),
    Transcript(
        "glm45",
        "I check.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>75</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>list_files\n</tool_call>",
        "I check.\n",
        (("get_weather", {"city": "75", "days": 3}), LIST_CALL),
    ),
    # GLM 4.7 writes no newlines.
    Transcript(
        "glm45",
        "<tool_call>search<arg_key>tags</arg_key><arg_value>[\"a\"]</arg_value><arg_key>exact</arg_key><arg_value>false</arg_value></tool_call>",
        "",
        (("search", {"tags": ["a"], "exact": False}),),
    ),
    Transcript(
        "glm45",
        f"<tool_call>write_file\n<arg_key>content</arg_key>\n<arg_value>{CODE}</arg_value>\n</tool_call>",
        "",
        (("write_file", {"content": CODE}),),
    ),
    Transcript("glm45", "<tool_call>list_files</tool_call>", "", (LIST_CALL,)),
    Transcript(
        "glm45",
        "<tool_call>other\n<arg_key>n</arg_key>\n<arg_value>4</arg_value>\n</tool_call>",
        "",
        (("other", {"n": 4}),),
    ),
    *_same(
        "glm45",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Par",
        "<tool_call>not a name at all</tool_call>",
    ),
]  # fmt: skip

KIMI = [
    Transcript(
        "kimi_k2",
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}'
        "<|tool_call_end|><|tool_calls_section_end|>",
        "",
        (PARIS_CALL,),
    ),
    Transcript(
        "kimi_k2",
        "Both. <|tool_calls_section_begin|><|tool_call_begin|>functions.list_files:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
        '<|tool_call_begin|>functions.get_weather:1<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        "Both. ",
        (LIST_CALL, PARIS_CALL),
    ),
    Transcript(
        "kimi_k2",
        '<|tool_calls_section_begin|> <|tool_call_begin|> functions.fs.read-all:12 <|tool_call_argument_begin|> {"path": "/"} '
        "<|tool_call_end|> <|tool_calls_section_end|>",
        "",
        (("fs.read-all", {"path": "/"}),),
    ),
    Transcript(
        "kimi_k2",
        '<|tool_calls_section_begin|><|tool_call_begin|>get_weather<|tool_call_argument_begin|>{"city": "Paris"}',
        "",
        (PARIS_CALL,),
    ),
    Transcript(
        "kimi_k2",
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Par',
        "",
        (("get_weather", '{"city": "Par'),),
    ),
    *_same(
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_wea",
        "<|tool_calls_section_begin|>and then nothing of the kind",
    ),
]

DEEPSEEK = [
    Transcript(
        "deepseek_v3",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        (PARIS_CALL,),
    ),
    Transcript(
        "deepseek_v3",
        'Yes.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris"}\n```'
        "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>list_files\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Yes.",
        (PARIS_CALL, LIST_CALL),
    ),
    Transcript(
        "deepseek_v3",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>list_files<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        (PARIS_CALL, LIST_CALL),
    ),
    Transcript(
        "deepseek_v3",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}',
        "",
        (PARIS_CALL,),
    ),
    Transcript(
        "deepseek_v3",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": ',
        "",
        (("get_weather", '{"city": '),),
    ),
    *_same(
        "deepseek_v3",
        "<｜tool▁calls▁begin｜>What follows is prose.",
        "Prose about ｜tool▁calls▁begin｜ alone.",
    ),
    Transcript(
        "deepseek_v32",
        'First.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">75'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        "First.\n\n",
        (("get_weather", {"city": "75", "days": 2}),),
    ),
    Transcript(
        "deepseek_v32",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="list_files">\n</｜DSML｜invoke>\n<｜DSML｜invoke name="search">\n'
        '<｜DSML｜parameter name="filters" string="false">{"a": null}</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        "",
        (LIST_CALL, ("search", {"filters": {"a": None}})),
    ),
    Transcript(
        "deepseek_v32",
        f'<｜DSML｜function_calls><｜DSML｜invoke name="write_file"><｜DSML｜parameter name="content" string="true">{CODE}'
        "</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>",
        "",
        (("write_file", {"content": CODE}),),
    ),
    *_same(
        "deepseek_v32",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Par',
        "<｜DSML｜function_calls>no</｜DSML｜function_calls>",
    ),
]

PYTHONIC = [
    Transcript("pythonic", "[get_weather(city='Paris')]", "", (PARIS_CALL,)),
    Transcript("pythonic", '[get_weather(city="Paris"), list_files()]', "", (PARIS_CALL, LIST_CALL)),
    Transcript("pythonic", '<|python_start|>[get_weather(city="Paris")]<|python_end|>', "", (PARIS_CALL,)),
    Transcript(
        "pythonic",
        "[search(filters={'a': [1, None]}, tags=['x, y)', \"it's\"], exact=True, score=-0.5)]",
        "",
        (("search", {"filters": {"a": [1, None]}, "tags": ["x, y)", "it's"], "exact": True, "score": -0.5}),),
    ),
    Transcript("pythonic", "[get_weather('Paris', 2)]", "", (("get_weather", {"city": "Paris", "days": 2}),)),
    Transcript("pythonic", "  \n[list_files()]", "", (LIST_CALL,)),
    *_same(
        "pythonic",
        "[not_declared(a=1)]",
        "[get_weather(city=open('/etc/passwd'))]",
        "[get_weather(**{})]",
        "[get_weather(city='Par",
        "[1, 2, 3]",
        "[see the list](https://example.com)",
        "Call [get_weather(city='Paris')] yourself.",
    ),
]

MISTRAL = [
    Transcript("mistral", f"[TOOL_CALLS] [{_json('get_weather', PARIS)}]", "", (PARIS_CALL,)),
    Transcript("mistral", f"[TOOL_CALLS] [{_json('get_weather', PARIS)}, {_json('list_files', {})}]", "", (PARIS_CALL, LIST_CALL)),
    Transcript("mistral", 'So: [TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]list_files[ARGS]{}', "So: ", (PARIS_CALL, LIST_CALL)),
    Transcript("mistral", '[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{"city": "Paris"}[TOOL_CALLS] list_files{}', "", (PARIS_CALL, LIST_CALL)),
    Transcript("mistral", '[TOOL_CALLS]fs.read-all[ARGS]{"path": "}"}', "", (("fs.read-all", {"path": "}"}),)),
    Transcript("mistral", '[TOOL_CALLS]get_weather[ARGS]{"city": "Par', "", (("get_weather", '{"city": "Par'),)),
    Transcript("mistral", f"[TOOL_CALLS] [{_json('list_files', {})}] and more", " and more", (LIST_CALL,)),
    *_same("mistral", "[TOOL_CALLS]get_weather[ARGS]", "[TOOL_CALLS] none of them", "[TOOL_"),
]  # fmt: skip

LLAMA = [
    Transcript("llama3_json", _json("get_weather", PARIS, "parameters"), "", (PARIS_CALL,)),
    Transcript("llama3_json", f"<|python_tag|>{_json('get_weather', PARIS, 'parameters')}; {_json('list_files', {}, 'parameters')}", "", (PARIS_CALL, LIST_CALL)),
    Transcript("llama3_json", '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}', "", (PARIS_CALL,)),
    Transcript("llama3_json", '{"type": "function", "function": {"name": "get_weather", "parameters": {"city": "Paris"}}}', "", (PARIS_CALL,)),
    Transcript("llama3_json", '<function=get_weather>{"city": "Paris"}</function>', "", (PARIS_CALL,)),
    Transcript("llama3_json", f"[{_json('get_weather', PARIS)}]", "", (PARIS_CALL,)),
    Transcript("llama3_json", '{"name": "get_weather", "parameters": {"city": "Par', "", (("get_weather", '{"city": "Par'),)),
    *_same(
        "llama3_json",
        '{"name": "Bob", "age": 30}',
        '{"name": "get_weather", "age": 30}',
        '{"name": "Bob", "parameters": {"a": 1}}',
        '{"name": "get_weather"}',
        '{"answer": 42}',
        '{"name": 5}',
        "{}",
        '{"na',
        "[]",
    ),
]  # fmt: skip

GEMMA = [
    Transcript("gemma", "```tool_code\nget_weather(city='Paris')\n```", "", (PARIS_CALL,)),
    Transcript("gemma", "I look.\n```tool_code\nprint(default_api.get_weather(city=\"Paris\"))\n```\n", "I look.\n", (PARIS_CALL,)),
    Transcript("gemma", "```tool_code\nlist_files()\nget_weather(city='Paris')\n```", "", (LIST_CALL, PARIS_CALL)),
    Transcript("gemma", "[get_weather(city='Paris')]", "", (PARIS_CALL,)),
    Transcript(
        "gemma",
        "<start_function_call>call:get_weather{city:<escape>Par{,}is<escape>,days:2}<end_function_call>",
        "",
        (("get_weather", {"city": "Par{,}is", "days": 2}),),
    ),
    Transcript(
        "gemma",
        'Now.<|tool_call>call:search{filters:{lang:<|"|>de<|"|>,none:null},tags:[<|"|>a<|"|>,<|"|>b<|"|>],exact:true}<tool_call|>'
        "<|tool_call>call:list_files{}<tool_call|>",
        "Now.",
        (("search", {"filters": {"lang": "de", "none": None}, "tags": ["a", "b"], "exact": True}), LIST_CALL),
    ),
    # The mark of the end is the model's end token, which is not part of the text.
    Transcript("gemma", "<start_function_call>call:list_files{}", "", (LIST_CALL,)),
    *_same(
        "gemma",
        "```tool_code\nimport os\n```",
        "```python\nget_weather(city='Paris')\n```",
        '<|tool_call>call:get_weather{city:<|"|>Par',
        "<|tool_call>nothing<tool_call|>",
        "<start_function_call>call:get_weather{city}<end_function_call>",
    ),
]  # fmt: skip

GRANITE = [
    Transcript("granite", f"<|tool_call|>[{_json('get_weather', PARIS)}]", "", (PARIS_CALL,)),
    Transcript("granite", f"<|tool_call|>[{_json('get_weather', PARIS)}, {_json('list_files', {})}]", "", (PARIS_CALL, LIST_CALL)),
    Transcript("granite", f"<tool_call>\n{_json('get_weather', PARIS)}\n</tool_call>", "", (PARIS_CALL,)),
    Transcript("granite", f"<tool_call>[{_json('list_files', {})}]</tool_call>", "", (LIST_CALL,)),
    Transcript("granite", f"[{_json('get_weather', PARIS)}]", "", (PARIS_CALL,)),
    Transcript("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Par', "", (("get_weather", '{"city": "Par'),)),
    *_same("granite", "<|tool_call|>[]", "<|tool_call|>oops"),
]  # fmt: skip

MINIMAX = [
    Transcript("minimax", f"<tool_calls>\n{_json('get_weather', PARIS)}\n{_json('list_files', {})}\n</tool_calls>", "", (PARIS_CALL, LIST_CALL)),
    Transcript("minimax", f"So <tool_calls>{_json('list_files', {})}</tool_calls>", "So ", (LIST_CALL,)),
    Transcript(
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">75</parameter>\n<parameter name="days">3</parameter>\n'
        "</invoke>\n</minimax:tool_call>",
        "",
        (("get_weather", {"city": "75", "days": 3}),),
    ),
    Transcript(
        "minimax_m2",
        'Two.\n<minimax:tool_call>\n<invoke name="list_files">\n</invoke>\n<invoke name="get_weather">\n<parameter name="city">Paris'
        "</parameter>\n</invoke>\n</minimax:tool_call>",
        "Two.\n",
        (LIST_CALL, PARIS_CALL),
    ),
    Transcript(
        "minimax_m2",
        f'<minimax:tool_call><invoke name="write_file"><parameter name="content">\n{CODE}\n</parameter></invoke></minimax:tool_call>',
        "",
        (("write_file", {"content": CODE}),),
    ),
    *_same(
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Par',
        "<minimax:tool_call>no</minimax:tool_call>",
        "<minimax:tool_call></minimax:tool_call>",
    ),
]  # fmt: skip

HARMONY = [
    Transcript(
        "openai",
        "<|channel|>analysis<|message|>They want weather.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        "",
        (PARIS_CALL,),
        "They want weather.",
    ),
    Transcript("openai", "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>", "Hello.", (), "Easy."),
    Transcript(
        "openai",
        "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant to=functions.list_files<|channel|>commentary json"
        "<|message|>{}<|call|>",
        "I look it up.",
        (LIST_CALL,),
    ),
    Transcript(
        "openai",
        '<|channel|>commentary to=functions.list_files<|message|>{}<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather'
        '<|message|>{"city": "Paris"}',
        "",
        (LIST_CALL, PARIS_CALL),
    ),
    Transcript("openai", "<|channel|>final<|message|>a < b <|en", "a < b <|en"),
    Transcript("openai", "A model that was not asked for harmony.", "A model that was not asked for harmony."),
    Transcript("openai", "<|channel|>analysis to=browser.search code<|message|>{}<|call|>", "", (), "{}"),
    Transcript("openai", '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Par', "", (("get_weather", '{"city": "Par'),)),
    Transcript("openai", "<|channel|>analy", ""),
]  # fmt: skip

OTHERS = [
    Transcript("phi4_mini_json", f"functools[{_json('get_weather', PARIS)}]", "", (PARIS_CALL,)),
    Transcript(
        "olmo3",
        "<function_calls>\nget_weather(city='Paris')\nlist_files()\n</function_calls>",
        "",
        (PARIS_CALL, LIST_CALL),
    ),
    *_same("olmo3", "<function_calls>\nnot Python\n</function_calls>"),
    *_same("phi4_mini_json", "functools is a module."),
]

TRANSCRIPTS = [
    *HERMES, *QWEN3_CODER, *GLM, *KIMI, *DEEPSEEK, *PYTHONIC, *MISTRAL, *LLAMA, *GEMMA, *GRANITE, *MINIMAX, *HARMONY, *OTHERS,
]  # fmt: skip
