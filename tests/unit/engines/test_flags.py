"""engine_args become an engine's own flags; what the plan owns or the engine would refuse is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.engines import units
from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.flags import notes, positive, problems, repeated, to_flags

TABLE = FlagTable(
    "Engine 1.0",
    """
    --max-model-len =count
    --max-num-seqs =int
    --enforce-eager !--no-enforce-eager
    --enable-expert-parallel -ep !--no-enable-expert-parallel
    --headless
    --tensor-parallel-size -tp =int
    --decode-context-parallel-size -dcp =int
    --gpu-memory-utilization --device-memory-utilization =float
    --lora-modules =text*
    --hf-overrides =json
    --hf-token =text?
    --compilation-config -cc =json
    --chat-template =text
    --chat-template-format =text
    --flash-attn -fa =on|off
    --strict =1|0
    --port =int
    """,
    abbreviates=True,
    count=units.vllm,
)
C_TABLE = FlagTable(
    "server 1",
    "-ngl --gpu-layers --n-gpu-layers =number\n-kvo --kv-offload !-nkvo !--no-kv-offload\n--lora =text\n--layers =text2\n--temp =number\n"
    "--fim-1.5b-default",
    joined=False,
    commas=True,
)
OWNED = {
    "port": "write port:",
    "tensor-parallel-size": "write gpu_count:",
    "gpu-memory-utilization": "write vram:",
}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_model_len": 8192}, ["--max-model-len", "8192"]),
        ({"--max-model-len": "8k"}, ["--max-model-len", "8k"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce_eager": False}, ["--no-enforce-eager"]),
        ({"no_enforce_eager": True}, ["--no-enforce-eager"]),
        ({"no_enforce_eager": False}, ["--enforce-eager"]),
        ({"ep": False}, ["--no-enable-expert-parallel"]),
        ({"ep": True}, ["-ep"]),
        ({"enforce": False}, ["--no-enforce-eager"]),
        ({"headless": None, "seed": None}, []),
        ({"flash_attn": True}, ["--flash-attn", "on"]),
        ({"fa": False}, ["-fa", "off"]),
        ({"strict": False}, ["--strict", "0"]),
        ({"hf_token": True}, ["--hf-token"]),
        ({"lora_modules": ["a=/x", "b=/y"]}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"hf_overrides": {"a": [1, None]}}, ["--hf-overrides", '{"a": [1, null]}']),
        ({"hf_overrides": ["é"]}, ["--hf-overrides", '["é"]']),
        ({"hf_overrides.rope_scaling.factor": 2}, ["--hf-overrides.rope_scaling.factor", "2"]),
        ({"compilation_config.use_it": False}, ["--compilation-config.use_it", "false"]),
        ({"-cc.mode": 3}, ["-cc.mode", "3"]),
        ({"-dcp": 2}, ["-dcp", "2"]),
        ({"dcp": 2}, ["-dcp", "2"]),
        ({"max_num_seq": 7}, ["--max-num-seq", "7"]),
        ({"chat_template": "-dash"}, ["--chat-template=-dash"]),
        ({"chat_template": "two words; $(x)"}, ["--chat-template", "two words; $(x)"]),
        ({"newer": [1, True, {"a": "é"}]}, ["--newer", "1", "true", '{"a": "é"}']),
        ({"newer_switch": True, "-x": 1, "x_y": 0.5}, ["--newer-switch", "-x", "1", "--x-y", "0.5"]),
        ({"-newer": 1}, ["-newer", "1"]),
        ({"z": 1, "a": 2}, ["-z", "1", "-a", "2"]),
    ],
)
def test_flags(args: dict[str, Any], words: list[str]) -> None:
    assert list(problems(args, TABLE, OWNED)) == []
    assert list(to_flags(args, TABLE)) == words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"ngl": 20}, ["-ngl", "20"]),
        ({"ngl": "all"}, ["-ngl", "all"]),
        ({"kv_offload": False}, ["--no-kv-offload"]),
        ({"nkvo": True}, ["-nkvo"]),
        ({"nkvo": False}, ["--kv-offload"]),
        ({"lora": ["a", "b"]}, ["--lora", "a,b"]),
        ({"layers": [1, 2]}, ["--layers", "1", "2"]),
        ({"lora": "-dash"}, ["--lora", "-dash"]),
        ({"temp": "0.5"}, ["--temp", "0.5"]),
        ({"fim_1.5b_default": True}, ["--fim-1.5b-default"]),
    ],
)
def test_flags_of_a_parser_that_is_not_argparse(args: dict[str, Any], words: list[str]) -> None:
    assert list(problems(args, C_TABLE, {})) == []
    assert list(to_flags(args, C_TABLE)) == words


@pytest.mark.parametrize("key", ["", "-", "---a", "a b", "a=b", "1x", "-x-", "a--b", "a;b", "é", ".a", "a."])
def test_what_is_no_flag(key: str) -> None:
    assert TABLE.find(key).spelling == ""
    assert list(problems({key: 1}, TABLE, {})) == [
        f"engine_args: {key!r} is not a valid flag; expected a name like max_model_len"
    ]


@given(st.text())
def test_a_flag_is_never_more_than_one_plain_word(key: str) -> None:
    spelling = TABLE.find(key).spelling
    assert not spelling or (spelling[0] == "-" and "=" not in spelling and len(spelling.split()) == 1)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("port", "port is set by the plan; write port:"),
        ("--port", "--port is set by the plan; write port:"),
        ("tensor_parallel_size", "tensor_parallel_size is set by the plan; write gpu_count:"),
        ("tp", "tp is --tensor-parallel-size, which is set by the plan; write gpu_count:"),
        ("-tp", "-tp is --tensor-parallel-size, which is set by the plan; write gpu_count:"),
        ("tensor", "tensor is --tensor-parallel-size, which is set by the plan; write gpu_count:"),
        ("po", "po is --port, which is set by the plan; write port:"),
        (
            "device_memory_utilization",
            "device_memory_utilization is --gpu-memory-utilization, which is set by the plan; write vram:",
        ),
        (
            "device_mem",
            "device_mem is --gpu-memory-utilization, which is set by the plan; write vram:",
        ),
    ],
)
def test_owned_flags_are_refused_in_every_spelling(key: str, says: str) -> None:
    assert list(problems({key: 1}, TABLE, OWNED)) == [f"engine_args: {says}"]


def test_an_abbreviation_of_several_flags_is_refused() -> None:
    assert list(problems({"chat_temp": "x"}, TABLE, {})) == [
        "engine_args: chat_temp could be --chat-template or --chat-template-format; write the flag in full"
    ]
    (said,) = problems({"h": 1, "de": 1}, TABLE, OWNED)
    assert said.startswith(
        "engine_args: de could be --gpu-memory-utilization, which is set by the plan (write vram:)"
    )
    assert list(problems({"kv_off": True}, C_TABLE, {"kv-offload": "no"})) == [], "only argparse abbreviates"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"headless": False}, "Engine 1.0 has no flag that negates --headless, which is off unless given"),
        ({"unheard_of": False}, "Engine 1.0 is not known to have --unheard-of or a flag that negates it"),
        ({"max_num_seqs": True}, "max_num_seqs is true, but --max-num-seqs takes a value"),
        ({"chat_template": False}, "chat_template is false, but --chat-template takes a value"),
        ({"enforce_eager": "yes"}, "enforce_eager is 'yes', but --enforce-eager is a switch"),
        ({"enforce_eager": 0}, "enforce_eager is 0, but --enforce-eager is a switch"),
        ({"chat_template": ["a"]}, "chat_template is a list, but --chat-template takes one value"),
        ({"max_num_seqs": "many"}, "max_num_seqs is 'many', expected an integer"),
        ({"max_num_seqs": "8k"}, "max_num_seqs is '8k', expected an integer"),
        ({"max_num_seqs": 1.5}, "max_num_seqs is 1.5, expected an integer"),
        ({"max_num_seqs": {"a": 1}}, "expected an integer"),
        ({"max_model_len": "8Ki"}, "max_model_len is '8Ki', expected an integer, in the units of Engine 1.0"),
        ({"device_memory_utilization": "most"}, "expected a number"),
        ({"max_model_len": 1, "max-model-len": 2}, "max_model_len and max-model-len are the same flag"),
        ({"dcp": 1, "decode_context": 2}, "dcp and decode_context are the same flag"),
        ({"enforce_eager": True, "no_enforce_eager": True}, "are the same flag"),
    ],
)
def test_a_value_that_the_flag_does_not_take(args: dict[str, Any], says: str) -> None:
    (said,) = problems(args, TABLE, {})
    assert said.startswith("engine_args: ")
    assert says in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"temp": "2k"}, "temp is '2k', of which the engine reads the first digits"),
        ({"layers": [1]}, "layers takes two values"),
        ({"ngl": 2, "gpu_layers": 3}, "ngl and gpu_layers are the same flag"),
    ],
)
def test_a_value_that_c_would_misread(args: dict[str, Any], says: str) -> None:
    (said,) = problems(args, C_TABLE, {})
    assert says in said


def test_what_the_table_does_not_have_is_passed_on_with_a_note() -> None:
    args = {"max_modle_len": 1, "zzz": 2, "enforce_eager": True, "-tp": 1, "chat_temp": 1}
    assert list(problems({"max_modle_len": 1, "zzz": 2}, TABLE, OWNED)) == []
    assert list(notes(args, TABLE)) == [
        "engine_args: max_modle_len: Engine 1.0 has no flag --max-modle-len; did you mean --max-model-len? "
        "It is passed on, in case another version has it",
        "engine_args: zzz: Engine 1.0 has no flag --zzz. It is passed on, in case another version has it",
    ]
    assert list(problems({"max_modle_len": 1}, TABLE, {}, complete=True)) == [
        "engine_args: max_modle_len: Engine 1.0 has no flag --max-modle-len; did you mean --max-model-len?"
    ]
    assert list(notes({"a": 1}, FlagTable(""))) == []


def test_a_value_in_every_spelling() -> None:
    assert TABLE.value({"max_model_len": 7}, "max-model-len") == 7
    assert TABLE.value({"max_num_seq": 7}, "max-num-seqs") == 7
    assert TABLE.value({"no_enforce": True}, "enforce-eager") is False
    assert TABLE.value({"-cc": 7}, "compilation-config") == 7
    assert TABLE.value({"compilation_config.mode": 7}, "compilation-config") is None
    assert TABLE.value({"max_model_len": 7}, "other") is None
    assert TABLE.value({"unheard-of": 7}, "unheard-of") == 7
    assert C_TABLE.value({"ngl": 7}, "gpu-layers") == 7


@pytest.mark.parametrize(
    ("read", "text", "number"),
    [
        (units.vllm, "32k", 32_000),
        (units.vllm, "32K", 32_768),
        (units.vllm, "25.6k", 25_600),
        (units.vllm, "1m", 1_000_000),
        (units.vllm, "1M", 1 << 20),
        (units.vllm, " 4096 ", 4096),
        (units.vllm, "auto", -1),
        (units.vllm, "8Ki", None),
        (units.vllm, "1.5K", None),
        (units.sglang, "32k", 32_000),
        (units.sglang, "8Ki", 8192),
        (units.sglang, "1M", 1_000_000),
        (units.sglang, "25.6k", 25_600),
        (units.sglang, "32K", None),
        (units.sglang, "1.5Ki", None),
        (units.plain, "8192", 8192),
        (units.plain, "8k", None),
    ],
)
def test_units_are_read_as_the_engine_reads_them(read: Any, text: str, number: int | None) -> None:
    table = FlagTable("E", "--length =count", count=read)
    assert table.integer({"length": text}, "length") == number
    assert bool(list(problems({"length": text}, table, {}))) == (number is None)


def test_a_value_said_twice_and_values_that_are_no_count() -> None:
    assert list(repeated({"max_num_seq": 4}, TABLE, {"max-num-seqs": 8})) == [
        "engine_args: max_num_seqs is given twice; remove one of the two"
    ]
    assert list(repeated({"max_num_seqs": 4}, TABLE, {"max-num-seqs": None})) == []
    for value in (0, "0", -3):
        assert list(positive({"max_num_seqs": value}, TABLE, "max-num-seqs")) == [
            f"engine_args: max_num_seqs is {value!r}, expected an integer above 0"
        ]
    assert list(positive({"max_num_seqs": "2"}, TABLE, "max-num-seqs", "port")) == []
