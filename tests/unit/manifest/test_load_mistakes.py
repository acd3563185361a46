"""Each mistake a person makes: where it is told, in which words, with which suggestion."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.unit.manifest.reading import places, problem, problems


@dataclass(frozen=True)
class Mistake:
    name: str
    text: str
    line: int
    column: int
    says: tuple[str, ...]
    suggestion: str = ""


UUID = "GPU-01234567-89ab-cdef-0123-456789abcdef"
MISTAKES = [
    Mistake("unknown key", "models:\n  - model: a\n    replcas: 2\n", 3, 5, ("unknown key 'replcas'",), "replicas"),
    Mistake("unknown key at the top", "modles: [a]\n", 1, 1, ("unknown key 'modles'",), "models"),
    Mistake("FastChat's word", "models: [{model: a, num_gpus: 2}]\n", 1, 21, ("unknown key",), "gpu_count"),
    Mistake("nothing near", "models: [a]\nqqq: 1\n", 2, 1, ("unknown key 'qqq'", "one of api, controller, defaults, models"), ""),
    Mistake("unknown key of api", "models: [a]\napi: {hots: x}\n", 2, 7, ("unknown key 'hots'",), "host"),
    Mistake("no default", "models: [a]\ndefaults: {port: 5000}\n", 2, 12, ("port belongs to one model",)),
    Mistake("number wanted", "models:\n- model: a\n  replicas: two\n", 3, 13, ("replicas is the text 'two'", "a whole number")),
    Mistake("quoted number", 'models:\n- model: a\n  port: "8123"\n', 3, 9, ("port", "a whole number, without quotes")),
    Mistake("fraction", "models:\n- model: a\n  replicas: 1.5\n", 3, 13, ("the number 1.5", "a whole number")),
    Mistake("boolean wanted", "models:\n- model: a\n  trust_remote_code: yes\n", 3, 22, ("the text 'yes'", "true or false")),
    Mistake("boolean as number", "models: [a]\napi: {port: true}\n", 2, 13, ("port is true", "a whole number")),
    Mistake("text wanted", "models: [{model: 3}]\n", 1, 18, ("model is the number 3", "text")),
    Mistake("list of texts wanted", "models: [{model: a, names: {b: c}}]\n", 1, 28, ("names is a mapping", "text, or a list")),
    Mistake("text in a list", "models: [{model: a, names: [b, 3]}]\n", 1, 32, ("item 2 of names is the number 3",)),
    Mistake("mapping wanted", "models: [a]\ncontroller: x\n", 2, 13, ("controller is the text 'x'", "a mapping")),
    Mistake("empty section", "models: [a]\napi:\n", 2, 5, ("api is empty", "a mapping")),
    Mistake("same port", "models:\n- a@@6000\n- b@@6000\n", 3, 3, ("port 6000 is taken by the model on line 2",)),
    Mistake("controller's port", "models: [a@@21001]\n", 1, 10, ("port 21001 is taken by the controller, which has it unless",)),
    Mistake("api's port", "models: [{model: a, port: 8000}]\n", 1, 27, ("port 8000 is taken by the api",)),
    Mistake("given controller", "models: [a@@7000]\ncontroller: {port: 7000}\n", 1, 10, ("the controller on line 2",)),
    Mistake("controller and api", "models: [a]\ncontroller: {port: 8000}\n", 2, 20, ("taken by the api",)),
    Mistake("api and controller", "models: [a]\napi: {port: 5}\ncontroller: {port: 5}\n", 2, 13, ("the controller on line 3",)),
    Mistake("same name", "models:\n- model: a\n  names: x\n- model: b\n  names: [y, x]\n", 5, 14, ("the name 'x'", "model on line 3")),
    Mistake("same default name", "models:\n- org/a\n- other/a\n", 3, 3, ("the name 'a' is taken by the model on line 2",)),
    Mistake("name twice", "models: [{model: a, names: [x, x]}]\n", 1, 32, ("the name 'x' is listed twice",)),
    Mistake("port 0", "models: [{model: a, port: 0}]\n", 1, 27, ("port is 0", "leave port out for the next free one")),
    Mistake("port too high", "models: [a@h@65536]\n", 1, 10, ("port is 65536", "1 to 65535")),
    Mistake("negative port", "models: [a@h@-1]\n", 1, 10, ("port is -1", "1 to 65535")),
    Mistake("replicas' ports too high", "models: [{model: a, port: 65535, replicas: 2}]\n", 1, 27, ("exceed 65535",)),
    Mistake("no models", "name: x\n", 1, 1, ("no models are listed",)),
    Mistake("empty models", "name: x\nmodels: []\n", 2, 9, ("no models are listed", "at least one")),
    Mistake("models no list", "models: {a: b}\n", 1, 9, ("models is not a list", "starting with -")),
    Mistake("model no mapping", "models: [3]\n", 1, 10, ("a model is a line of text or a mapping",)),
    Mistake("model missing", "models:\n- names: x\n", 2, 3, ("the key 'model' is missing",)),
    Mistake("model empty", 'models: [{model: ""}]\n', 1, 18, ("model is empty",)),
    Mistake("unknown engine", "models:\n- model: a\n  engine: vlm\n", 3, 11, ("engine is 'vlm'", "one of auto, transformers"), "vllm"),
    Mistake("half of TLS", "models: [a]\napi: {port: 1, tls_key: k}\n", 2, 16, ("tls_key is given without tls_cert", "both")),
    Mistake("unknown dispatch", "models: [a]\ncontroller: {dispatch: lotery}\n", 2, 24, ("'lotery'",), "lottery"),
    Mistake("unknown dtype", "models: [{model: a, dtype: bf16}]\n", 1, 28, ("'bf16'",), "bfloat16"),
    Mistake("other runtime", "models: [a]\nruntime: ray\n", 2, 10, ("runtime is 'ray'", "local, the only one so far")),
    Mistake("unset variable", "models:\n- model: a\n  revision: ${NOPE}\n", 3, 13, ("variable NOPE is not set", "${NOPE:-default}")),
    Mistake("no variable", "models:\n- model: ${1x}\n", 2, 10, ("${ does not start a variable", "$$")),
    Mistake("short UUID", "models: [{model: a, gpus: GPU-123}]\n", 1, 27, ("gpus is 'GPU-123'", "not a complete UUID")),
    Mistake("bad UUID in a list", f"models: [{{model: a, gpus: [{UUID}, MIG-x]}}]\n", 1, 70, ("item 2 of gpus is 'MIG-x'",)),
    Mistake("no device", "models: [{model: a, gpus: atuo}]\n", 1, 27, ("gpus is 'atuo', which is not a valid device",), "auto"),
    Mistake("boolean device", "models: [{model: a, gpus: [0, true]}]\n", 1, 31, ("item 2 of gpus is true",)),
    Mistake("negative device", "models: [{model: a, gpus: -1}]\n", 1, 27, ("gpus is -1", "count from 0")),
    Mistake("same device twice", "models: [{model: a, gpus: [1, 1]}]\n", 1, 31, ("already in the list",)),
    Mistake("no devices", "models: [{model: a, gpus: []}]\n", 1, 27, ("gpus is empty", "cpu")),
    Mistake("index list and count", "models: [{model: a, gpus: [0, 1], gpu_count: 2}]\n", 1, 35, ("gpu_count is only valid with",)),
    Mistake("cpu and count", "models: [{model: a, gpus: cpu, gpu_count: 2}]\n", 1, 32, ("gpu_count requests GPUs",)),
    Mistake("count of none", "models: [{model: a, gpu_count: 0}]\n", 1, 32, ("gpu_count is 0", "1 or more")),
    Mistake("bad size", "models: [{model: a, vram: 18QB}]\n", 1, 27, ("vram is '18QB'", "a size such as 18GiB")),
    Mistake("bad duration", "models: [{model: a, stop_grace: 1d}]\n", 1, 33, ("stop_grace is '1d'", "a duration such as 90s")),
    Mistake("no time to start", "models: [{model: a, start_timeout: 0}]\n", 1, 36, ("is not longer than 0",)),
    Mistake("command missing", "models:\n- model: a\n  engine: command\n", 3, 11, ("requires the key command", "{port}")),
    Mistake("command for another engine", "models: [{model: a, command: [x]}]\n", 1, 21, ("command is only valid with engine: command",)),
    Mistake("command as text", "models: [{model: a, engine: command, command: x y}]\n", 1, 47, ("command is the text 'x y'", "a list")),
    Mistake("flags", "models: [{model: a, engine: command, command: [x], engine_args: {b: 1}}]\n", 1, 52, ("engine_args does not apply",)),
    Mistake("host with spaces", "models: [{model: a, host: b c}]\n", 1, 27, ("host is 'b c', which is not a valid host",)),
    Mistake("host and port", "models: [a]\napi: {host: 'localhost:80'}\n", 2, 13, ("contains a port", "a key of its own")),
    Mistake("probe no path", "models: [{model: a, probe: health}]\n", 1, 28, ("probe is 'health'", "starts with /")),
    Mistake("probe misspelt", "models: [{model: a, probe: non}]\n", 1, 28, ("probe is 'non'",), "none"),
    Mistake("probe with spaces", "models: [{model: a, ready_probe: /a b}]\n", 1, 34, ("ready_probe is '/a b'", "no spaces")),
    Mistake("no probe at all may fail", "models: [{model: a, probe_failures: 0}]\n", 1, 37, ("probe_failures is 0", "1 or more")),
    Mistake("no time to answer", "models: [{model: a, probe_timeout: 0}]\n", 1, 36, ("is not longer than 0",)),
    Mistake("restart misspelt", "models: [{model: a, restart: nver}]\n", 1, 30, ("restart is 'nver'", "{max: 3"), "never"),
    Mistake("restart's key", "models: [{model: a, restart: {dely: 1}}]\n", 1, 30, ("restart has the unknown key 'dely'",)),
    Mistake("restart's max", "models: [{model: a, restart: {max: 0}}]\n", 1, 30, ("needs max to be a whole number from 1", "never")),
    Mistake("restart's delay", "models: [{model: a, restart: {delay: 0}}]\n", 1, 30, ("needs delay to be a duration longer than 0",)),
    Mistake("name of the deployment", "models: [a]\nname: My Lab\n", 2, 7, ("name is 'My Lab'", "lowercase letters")),
    Mistake("environment's key", 'models: [{model: a, env: {"1x": y}}]\n', 1, 27, ("the key '1x' is not a valid",)),
    Mistake("environment's value", "models: [{model: a, env: {A: [b]}}]\n", 1, 30, ("A cannot be the value",)),
    Mistake("flags no mapping", "models: [{model: a, engine_args: [b]}]\n", 1, 34, ("engine_args is a list", "a mapping")),
    Mistake("@ in a path", "models:\n- ./my@home/models/x\n", 2, 3, ("the host 'home/models/x' is a path", "long form")),
    Mistake("too many @", "models: [a@b@1@0@x]\n", 1, 10, ("too many @", "long form")),
    Mistake("port no number", "models: [a@b@c]\n", 1, 10, ("port is the text 'c'", "a whole number")),
    Mistake("short form's device", "models: ['a@@@0,x']\n", 1, 10, ("gpus is 'x', which is not a valid device",)),
    Mistake("small vram", "models: [{model: a, vram: 18}]\n", 1, 27, ("vram is 18, which is less than any model needs", "18GiB")),
    Mistake("short form without model", 'models: ["@b"]\n', 1, 10, ("the model is missing before the first @",)),
    Mistake("unknown user", "models: ['~nosuchuser/x']\n", 1, 10, ("the home folder of ~nosuchuser",)),
    Mistake("NUL", 'models: [{model: "a\\0b"}]\n', 1, 18, ("this value contains a character",)),
    Mistake("half a character", 'models: [{model: "a\\ud800"}]\n', 1, 18, ("this value contains a character",)),
    Mistake("no name possible", "models: [{model: /}]\n", 1, 18, ("cannot derive a name",)),
    Mistake("no manifest", "- a\n", 1, 1, ("a manifest is a mapping",)),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(mistake: Mistake) -> None:
    found = problem(mistake.text)
    assert (found.line, found.column) == (mistake.line, mistake.column), str(found)
    for part in mistake.says:
        assert part in str(found)
    assert found.suggestion == mistake.suggestion
    assert str(found).startswith(f"deploy.yaml:{mistake.line}:{mistake.column}: ")
    for jargon in ("Input should", "pydantic", "valid string", "type=", "NoneType", "dict"):
        assert jargon not in str(found)


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = """\
        name: Lab
        api: {port: 70000, prot: 1}
        defaults: {engine: vlm}
        models:
          - model: a
            port: 0
            gpus: [0, 0]
          - b@h@x
          - {model: c, names: [x, y], colour: red}
          - {model: d, names: y}
    """
    assert places(text) == [(1, 7), (2, 13), (2, 20), (3, 20), (6, 11), (7, 15), (8, 5), (9, 31), (10, 23)]


@pytest.mark.parametrize("noise", ["hots: x", "max_body: lots", "api_keys_env: '1'"])
def test_another_wrong_key_hides_no_port_clash(noise: str) -> None:
    found = problems(f"models: [a@@7000]\napi:\n  {noise}\n  port: 7000\n")
    assert [f.line for f in found] == [1, 3]
    assert "port 7000 is taken by the api on line 4" in found[0].message


def test_a_wrong_value_is_no_reason_for_further_mistakes() -> None:
    assert places("models:\n- {model: a, engine: comand, command: [x]}\n") == [(2, 22)]
    assert places("models:\n- {model: a, engine: command, command: x}\n") == [(2, 40)]
    assert places("models:\n- {model: a, names: 3}\n- a\n") == [(2, 21)]
    assert places("models:\n- {model: a, host: 3, port: 8000}\n") == [(2, 20)]
    assert places("models:\n- ${NOPE}\n- {model: '${NOPE}', port: 21001}\n") == [(2, 3), (3, 11), (3, 28)]


def test_mistakes_in_defaults_are_told_once_where_they_stand() -> None:
    models = "models: [a, b, {model: c}]\n"
    assert places(models + "defaults: {replicas: two}\n") == [(2, 22)]
    assert places(models + "defaults: {gpus: [0, 0]}\n") == [(2, 22)]
    assert places(models + "defaults: {gpus: [0], gpu_count: 2}\n") == [(2, 23)]
    assert places(models + "defaults: {gpus: cpu, gpu_count: 2}\n") == [(2, 23)]
    assert places(models + "defaults: {env: {A: [1]}}\n") == [(2, 21)]


def test_the_list_of_keys_is_shown_only_when_none_is_near() -> None:
    assert problem("models: [a]\nmodel: b\n").expected == ""
    assert "runtime" in problem("models: [a]\nzzz: b\n").expected


def test_long_values_are_cut() -> None:
    assert len(str(problem(f"models: [{{model: a, vram: {'9' * 5000}}}]\n"))) < 300
