"""What people are shown of a command line that holds values from the environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmlaunch.errors import ManifestError
from llmlaunch.manifest.load import loads
from llmlaunch.planning.codec import plan_from_json, plan_report, plan_to_json
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Plan, PlanningContext, ProcessSpec
from tests.unit.planning.builders import FACTS, box, gpu

SECRET = "hunter2-0123456789"
ENV = {"S": SECRET, "LAB_TOKEN": SECRET, "N": "64", "DASHED": "-x", "ON": "true", "HOME": "/home/me"}


def made(model: str, env: dict[str, str] = ENV) -> Plan:
    manifest = loads(f"models: [{model}]", env=env, base=Path("/nowhere"))
    return plan(manifest, box(gpu(0)), FACTS, PlanningContext())


def worker(model: str) -> ProcessSpec:
    return made(model).processes[1]


@pytest.mark.parametrize(
    ("word", "argv", "shown"),
    [
        ("${S}", SECRET, "${S}"),
        ("--key=${S}", f"--key={SECRET}", "--key=${S}"),
        ("${S}:${N}", f"{SECRET}:64", "${S}:${N}"),
        ("--port={port}", "--port=21002", "--port=21002"),
        ("${S}-{port}-{{x}}", f"{SECRET}-21002-{{x}}", "${S}-21002-{x}"),
        ("${NOPE:-text}", "text", "text"),
        ("${S:-text}", SECRET, "${S}"),
        ("$$S ${NOPE:-a}", "$S a", "$S a"),
        ("${S} $$1", f"{SECRET} $1", "${S} $1"),
    ],
)
def test_a_word_of_a_command(word: str, argv: str, shown: str) -> None:
    spec = worker(f'{{model: m, engine: command, gpus: cpu, command: [run, "{word}"]}}')
    assert spec.argv == ("run", argv)
    assert spec.shown_argv == ("run", shown)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("args", "argv", "shown"),
    [
        ('hf_token: "${S}"', ["--hf-token", SECRET], ["--hf-token", "${S}"]),
        ('some_number: "${N}"', ["--some-number", "64"], ["--some-number", "${N}"]),
        ('a_list: ["${S}", b]', ["--a-list", SECRET, "b"], ["--a-list", "${S}", "b"]),
        ('a_map: {k: "x${S}"}', ["--a-map", f'{{"k": "x{SECRET}"}}'], ["--a-map", '{"k": "x${S}"}']),
        ('dashed: "${DASHED}"', ["--dashed=-x"], ["--dashed", "${DASHED}"]),
    ],
)
def test_flags_of_an_engine(engine: str, args: str, argv: list[str], shown: list[str]) -> None:
    spec = worker(f"{{model: llama, engine: {engine}, engine_args: {{{args}}}}}")
    assert list(spec.argv[-len(argv) :]) == argv
    assert list(spec.shown_argv[-len(shown) :]) == shown
    assert spec.argv[: -len(argv)] == spec.shown_argv[: -len(shown)]


def test_what_defaults_bring_in_is_hidden_in_every_model() -> None:
    manifest = loads(
        "models: [llama, {model: smollm2, engine_args: {other: 1}}]\n"
        'defaults: {engine: vllm, engine_args: {hf_token: "${S}"}}',
        env=ENV,
    )
    for spec in plan(manifest, box(gpu(0)), FACTS, PlanningContext()).processes[1:-1]:
        assert SECRET in spec.argv
        assert SECRET not in str(spec.shown_argv)


def test_a_command_line_without_variables_is_shown_as_it_is() -> None:
    spec = worker("{model: m, engine: command, gpus: cpu, command: [run, '{port}']}")
    assert spec.argv_shown == ()
    assert spec.shown_argv == spec.argv


def test_the_report_hides_it_and_the_supervisors_own_form_does_not() -> None:
    found = made('{model: m, engine: command, gpus: cpu, command: [run, "${S}"], env: {A: "${S}"}}')
    assert SECRET not in json.dumps(plan_report(found))
    assert plan_from_json(json.loads(json.dumps(plan_to_json(found)))) == found


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ('[run, --token, "${S}"]', ["S"]),
        ('[run, "--api-key=${S}"]', ["S"]),
        ('[run, -H, "Authorization: Bearer ${LAB_TOKEN}"]', ["LAB_TOKEN"]),
        ('[run, "${LAB_TOKEN}", "${LAB_TOKEN}"]', ["LAB_TOKEN"]),
        ('[run, "--size=${N}", "${HOME}/x"]', []),
        ('[run, "--token", "x", "--size=${N}"]', []),
        ('["${HOME}/bin/run", "--tokenizer", "${HOME}/t"]', []),
        ("[run, --token, plain]", []),
    ],
)
def test_a_note_says_that_everybody_can_read_it(command: str, names: list[str]) -> None:
    notes = made(f"{{model: m, engine: command, gpus: cpu, replicas: 2, command: {command}}}").notes
    said = [note for note in notes if "is part of its command line" in note]
    assert len(said) == len(names)
    for note, name in zip(said, names, strict=True):
        assert note.startswith(f"m: the value of ${{{name}}} is part")
        assert "every user of this machine" in note
        assert SECRET not in note


@pytest.mark.parametrize(
    "model",
    [
        '{model: m, engine: command, command: ["${S}{nothing}"]}',
        '{model: llama, engine: vllm, engine_args: {max_num_seqs: "${S}"}}',
    ],
)
def test_no_refusal_tells_a_value(model: str) -> None:
    with pytest.raises(ManifestError) as refused:
        made(model)
    assert SECRET not in str(refused.value)
    assert "${S}" in str(refused.value)


def test_a_secret_is_no_part_of_what_is_learned() -> None:
    model = '{model: llama, engine: vllm, engine_args: {hf_token: "${S}"}}'
    keys = {made(model, {"S": value}).processes[1].learning_key for value in ("one", "two")}
    assert len(keys) == 1
    assert "" not in keys


def test_an_engine_is_told_its_key_by_the_deployment_alone() -> None:
    for engine, variable in (("vllm", "VLLM_API_KEY"), ("transformers", "LLMLAUNCH_WORKER_KEY")):
        with pytest.raises(ManifestError, match=f"env: {variable} is set by the deployment"):
            made(f"{{model: llama, engine: {engine}, env: {{{variable}: x}}}}")
        assert worker(f"{{model: llama, engine: {engine}}}").key_variable == variable
    assert worker("{model: llama, engine: sglang, env: {VLLM_API_KEY: x}}").key_variable == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"error: unknown argument --key={SECRET}", "error: unknown argument --key=${S}"),
        ("error: no such model", "error: no such model"),
        ("cannot log in as hunter3-0123456789", "cannot log in as ***"),
        ("64 is too many", "64 is too many"),
    ],
)
def test_what_a_process_says_last_is_told_without_its_secrets(said: str, shown: str) -> None:
    env = ENV | {"OTHER": "hunter3-0123456789"}
    model = '{model: m, engine: command, gpus: cpu, command: [run, "--key=${S}", "${N}"], env: {A: "${OTHER}", B: "${N}"}}'
    assert made(model, env).processes[1].hide(said) == shown
