"""``${VAR}``: what is filled in, with which type, and that it is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.manifest.reading import manifest, model, places, problem, problems, told

SECRET = "hunter2-0123456789"
ENV = {"PORT": "8123", "EMPTY": "", "TRUE": "true", "S": SECRET}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${S}", SECRET),
        ("x${S}y", f"x{SECRET}y"),
        ("${NOPE:-z}", "z"),
        ("${NOPE:-}", ""),
        ("${EMPTY:-z}", "z"),
        ("${EMPTY}", ""),
        ("${PORT:-z}", "8123"),
        ("${NOPE:-a:-b}", "a:-b"),
        ("$$", "$"),
        ("$${S}", "${S}"),
        ("a$b", "a$b"),
        ("${PORT}${PORT}", "81238123"),
    ],
)
def test_filled_in(text: str, value: str) -> None:
    assert model(f'models: [{{model: m, env: {{A: "{text}"}}}}]', ENV).env["A"] == value


def test_a_plain_scalar_gets_its_type_after_filling_in() -> None:
    spec = model(
        """\
        models:
          - model: a
            port: ${PORT}
            trust_remote_code: ${TRUE}
            stop_grace: ${NOPE:-1.5}
            engine_args:
              a: ${PORT}
              b: "${PORT}"
        """,
        ENV,
    )
    assert (spec.port, spec.trust_remote_code, spec.stop_grace_s) == (8123, True, 1.5)
    assert spec.engine_args == {"a": 8123, "b": "8123"}


def test_quotes_do_not_keep_a_number_out_where_a_number_belongs() -> None:
    text = 'models: [{model: a, port: "${PORT}", gpus: "${NOPE:-1}", names: ["${PORT}"], trust_remote_code: "${TRUE}"}]'
    spec = model(text, ENV)
    assert (spec.port, spec.trust_remote_code, spec.names) == (8123, True, ("8123",))
    assert manifest('models: [a]\napi: {port: "${PORT}"}', ENV).api.port == 8123


def test_short_forms_may_hold_variables() -> None:
    assert model("models:\n- m@localhost@${PORT}@${NOPE:-cpu}\n", ENV).port == 8123


def test_keys_are_left_alone() -> None:
    assert problem('models: [a]\n"${S}": 1\n', ENV).message == "unknown key '${S}'"


def test_an_unset_variable_is_one_mistake_and_all_are_told() -> None:
    text = "models:\n- ${A}\n- model: ${B}\n  port: ${C}\n  names: [x, '${D}']\n  env: {E: '${E}'}\napi: {port: '${F}'}\n"
    found = problems(text)
    assert [(p.line, p.column) for p in found] == [(2, 3), (3, 10), (4, 9), (5, 14), (6, 12), (7, 13)]
    assert [p.message for p in found] == [f"the environment variable {name} is not set" for name in "ABCDEF"]


def test_a_default_holds_no_variable() -> None:
    found = problem("models: ['${A:-${B:-c}}']\n", {"B": "b"})
    assert found.message == "the default of ${A} contains another variable"


def test_unset_in_defaults_is_told_once() -> None:
    assert places("models: [a, b]\ndefaults: {env: {A: '${NOPE}'}, replicas: '${NOPE}'}\n") == [
        (2, 21),
        (2, 43),
    ]


def test_environment_values_keep_their_text() -> None:
    spec = model(
        "models: [{model: m, env: {A: 1.50, B: true, C: 0x1F, D: , E: ~, F: 007, G: 1e3, H: 'x y', I: 2024-01-01, J: yes}}]"
    )
    assert dict(spec.env) == {
        "A": "1.50", "B": "true", "C": "0x1F", "D": "", "E": "~", "F": "007", "G": "1e3", "H": "x y", "I": "2024-01-01", "J": "yes",
    }  # fmt: skip


def test_what_came_from_the_environment_is_known_as_secret() -> None:
    found = manifest('models: [{model: m, env: {A: "${S}", B: "${NOPE:-open}", C: text}}]', ENV)
    assert found.secrets == {SECRET}


def test_a_model_knows_which_variables_it_refers_to() -> None:
    """Whether a value or a default was taken, in its own keys and in what it inherits; not what it overrides."""
    text = """\
        defaults:
          env: {A: "${S}", B: "${TRUE}"}
          engine_args: {x: "${S}"}
        models:
          - model: a
          - {model: b, env: {A: plain, B: "x${PORT}"}}
          - {model: c, engine: command, command: [run, "--k=${PORT}"], env: {A: a, B: b, D: "${EMPTY:-d}"}}
        api: {port: "${PORT}"}
        """
    found = manifest(text, ENV)
    assert [set(spec.variables) for spec in found.models] == [{"S", "TRUE"}, {"S", "PORT"}, {"PORT"}]


def test_env_pass_and_env_only() -> None:
    text = """\
        defaults: {env_pass: AWS_*}
        models:
          - a
          - {model: b, env_pass: [WANDB_API_KEY, "LAB_*", WANDB_API_KEY], env_only: true}
        """
    a, b = manifest(text).models
    assert (a.env_pass, a.env_only) == (("AWS_*",), False)
    assert (b.env_pass, b.env_only) == (("WANDB_API_KEY", "LAB_*"), True)
    for wrong in ("*_KEY", "A*B", "A B", "", "1A", "A-B"):
        found = problem(f'models: [{{model: a, env_pass: [OK, "{wrong}"]}}]')
        assert "is not a valid name or prefix of environment variables" in found.message
        assert "AWS_*" in found.expected


WRONG_WITH = [
    "models: ['{v}@@x']",
    "models: ['a@b/{v}']",
    "models: ['a@@@{v}']",
    "models: ['a@{v} b']",
    "models: ['a@b@c@d@{v}']",
    "models: ['~{v}/x']",
    "models: [x, 'y/{v}', 'z/{v}']",
    "models: [{{model: a, names: ['{v}', '{v}']}}]",
    "models: [{{model: a, names: ['{v},']}}]",
    "models: [{{model: a, names: {{b: '{v}'}}}}]",
    "models: [{{model: a, engine: '{v}'}}]",
    "models: [{{model: a, port: '{v}'}}]",
    "models: [{{model: a, replicas: ['{v}']}}]",
    "models: [{{model: a, gpus: '{v}'}}]",
    "models: [{{model: a, gpus: [0, 'GPU-{v}']}}]",
    "models: [{{model: a, vram: '{v}'}}]",
    "models: [{{model: a, stop_grace: '{v}'}}]",
    "models: [{{model: a, dtype: '{v}'}}]",
    "models: [{{model: a, probe: '{v}'}}]",
    "models: [{{model: a, host: '{v} x'}}]",
    "models: [{{model: a, host: '{v}:80'}}]",
    "models: [{{model: a, env: {{A: ['{v}'], '1x': '{v}'}}}}]",
    "models: [{{model: a, engine_args: ['{v}']}}]",
    "models: [{{model: a, command: '{v}'}}]",
    "models: [{{model: a, trust_remote_code: '{v}'}}]",
    "models: '{v}'",
    "models: [['{v}']]",
    "models: [a]\nname: 'X{v}'",
    "models: [a]\nruntime: '{v}'",
    "models: [a]\napi: '{v}'",
    "models: [a]\napi: {{max_body: '{v}', api_keys_env: '{v}', api_keys_file: '~{v}/x', cors_origins: {{x: '{v}'}}}}",
    "models: [a]\ncontroller: {{dispatch: '{v}', open_registration: '{v}'}}",
    "models: [a, b]\ndefaults: {{replicas: '{v}', env: {{A: ['{v}']}}}}",
    "'{v}'",
]


@pytest.mark.parametrize("text", WRONG_WITH)
def test_no_message_shows_a_value_from_the_environment(text: str) -> None:
    for found in problems(text.format(v="${S}"), ENV):
        assert SECRET not in str(found)


def test_a_port_from_the_environment_is_not_shown() -> None:
    assert (
        problem("models: [a@@8123, 'b@@${PORT}']", ENV).message == "this port is taken by the model on line 1"
    )
    assert "8123" not in str(
        problem("models: [a]\napi: {port: 8000}\ncontroller: {port: '${X}'}", {"X": "8000"})
    )


@given(
    text=st.text(st.sampled_from("${}:-A9_ \\n'")),
    env=st.dictionaries(st.sampled_from(["A", "A9"]), st.text(max_size=3)),
)
def test_any_text_is_filled_in_or_refused(text: str, env: dict[str, str]) -> None:
    quoted = text.replace("'", "''").replace("\n", " ")
    before = "models: [{model: m, engine: command, command: [x], env: {V: "
    found = told(f"{before}'{quoted}'}}}}]", env)
    assert all((problem.line, problem.column) == (1, len(before) + 1) for problem in found)
