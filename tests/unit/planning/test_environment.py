"""What a process gets of the environment of who started it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.planning.environment import OURS, child_environment, looks_secret, private_names
from llmlaunch.planning.types import Component, ProcessSpec


def spec(component: Component = Component.WORKER, **changes: Any) -> ProcessSpec:
    bare = ProcessSpec("w-1", component, ("serve",), {}, "127.0.0.1", 21002, "http://127.0.0.1:21002")
    return replace(bare, **changes)


WORKER, API, CONTROLLER = spec(), spec(Component.API), spec(Component.CONTROLLER)

SECRETS = [
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LAB_KEYS", "LAB_API_KEYS", "GITHUB_TOKEN", "GH_PAT", "CI_JOB_JWT", "token", "PGPASSWORD",
    "MYSQL_PWD", "DB_PASS", "SUDO_PASSWORD_FILE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "aws_session_token", "AZURE_CLIENT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS", "STRIPE_SECRET", "SECRET_SAUCE", "SSH_AUTH_SOCK", "SENTRY_DSN", "SLACK_WEBHOOK_URL",
    "NPM_CONFIG__AUTH", "WANDB_API_KEY", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "LAB_CREDS",
    "MYAPIKEY", "GITHUBTOKEN", "VAULT_TOKEN", "VLLM_API_KEY", "LLAMA_API_KEY", "API_TOKENS", "TLS_PRIVATE_KEY", "LLMLAUNCH_API_KEY",
]  # fmt: skip
HARMLESS = [
    "PATH", "HOME", "PWD", "OLDPWD", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "TOKENIZERS_PARALLELISM", "KEYBOARD_LAYOUT", "VLLM_MAX_BATCHED_TOKENS", "MAX_TOKENS", "PASSAGE", "AUTHOR", "COMPASS", "MONKEY",
    "OMP_NUM_THREADS", "OTEL_EXPORTER_OTLP_ENDPOINT", "https_proxy", "VIRTUAL_ENV", "LLMLAUNCH_HOME", "TURKEY", "PATTERN",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_a_name_that_looks_secret_reaches_no_process(name: str) -> None:
    assert looks_secret(name)
    for who in (WORKER, CONTROLLER):
        assert child_environment({name: "x", "PATH": "/bin"}, who) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_name_stays(name: str) -> None:
    for who in (WORKER, CONTROLLER, API):
        assert child_environment({name: "x"}, who) == {name: "x"}


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DATABASE_URL", "postgres://app:hunter2@db/lab", True),
        ("PIP_INDEX_URL", "https://:hunter2@pypi.lab/simple", True),
        ("https_proxy", "http://me:hunter2@proxy:3128", False),
        ("HTTPS_PROXY", "http://me:hunter2@proxy:3128", False),
        ("SITE", "https://lab.example/a:b@c", False),
        ("SOMETHING", "sk-proj-0123456789", True),
        ("SOMETHING", "ghp_0123456789", True),
        ("SOMETHING", "AKIA0123456789", True),
        ("SOMETHING", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc", True),
        ("SOMETHING", "ask-me", False),
    ],
)
def test_a_value_can_look_secret_too(name: str, value: str, secret: bool) -> None:
    assert looks_secret(name, value) is secret
    assert (name in child_environment({name: value}, WORKER)) is not secret


@pytest.mark.parametrize("part", ["x", "x:", "a://", "a://:", "a:/", "x+.-", "@", "a://b:c "])
def test_values_as_long_as_the_kernel_allows_take_no_longer_than_their_length(part: str) -> None:
    """Backtracking would take minutes for each of these."""
    assert not looks_secret("NOTES", part * (131_000 // len(part)))
    assert looks_secret("NOTES", part * (131_000 // len(part)) + " https://me:word@host/")


HUBS = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN")


@pytest.mark.parametrize("name", HUBS)
def test_what_hubs_need_goes_to_workers_alone(name: str) -> None:
    assert child_environment({name: "hf_x"}, WORKER) == {name: "hf_x"}
    assert child_environment({name: "hf_x"}, WORKER, [name]) == {}
    assert child_environment({name: "hf_x"}, API) == child_environment({name: "hf_x"}, CONTROLLER) == {}


@pytest.mark.parametrize(
    ("patterns", "passed"),
    [
        ((), set()),
        (("AWS_*",), {"AWS_REGION", "AWS_SECRET_ACCESS_KEY"}),
        (("AWS_REGION",), {"AWS_REGION"}),
        (("AWS_",), set()),
        (("WANDB_API_KEY", "AWS_S*"), {"WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"}),
        (("*",), {"AWS_REGION", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"}),
        (("LAB_API_*",), set()),
        (("LAB_API_KEYS",), {"LAB_API_KEYS"}),
        (("LLMLAUNCH_TOKEN", "LLMLAUNCH_*"), set()),
    ],
)
def test_env_pass_hands_over_what_it_names(patterns: tuple[str, ...], passed: set[str]) -> None:
    """A pattern reaches everything but what is somebody else's: the API keys have to be named. The deployment's own keys
    cannot even be named."""
    caller = dict.fromkeys(
        ("AWS_REGION", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "LAB_API_KEYS", "LLMLAUNCH_TOKEN", "LLMLAUNCH_WORKER_KEYS"),
        "x",
    )  # fmt: skip
    assert set(child_environment(caller, spec(env_pass=patterns), ["LAB_API_KEYS"])) == passed
    only = spec(env_pass=patterns, env_only=True)
    assert set(child_environment(caller, only, ["LAB_API_KEYS"])) == passed


def test_env_only_leaves_what_every_program_needs() -> None:
    caller = {
        "PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C", "XDG_CACHE_HOME": "/c", "LLMLAUNCH_HOME": "/l", "CUDA_HOME": "/cuda",
        "HF_TOKEN": "hf_x", "MODE": "x", "LD_PRELOAD": "x",
    }  # fmt: skip
    got = child_environment(caller, spec(env_only=True, env={"A": "1"}))
    assert got == {
        "PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C", "XDG_CACHE_HOME": "/c", "LLMLAUNCH_HOME": "/l", "A": "1",
    }  # fmt: skip
    assert child_environment(caller, spec(env_only=True, env_pass=("HF_*",)))["HF_TOKEN"] == "hf_x"


def test_what_one_model_refers_to_does_not_reach_another() -> None:
    caller = {"TEAM_A": "hunter2", "PATH": "/bin"}
    private = private_names(["TEAM_A", "PATH"], "LAB_API_KEYS")
    assert private == ("LAB_API_KEYS", "TEAM_A"), "a PATH that one model extends stays everybody's"
    mine = spec(own_env=("PATH", "TEAM_A"), env={"HF_TOKEN": "hunter2", "PATH": "/opt:/bin"})
    assert child_environment(caller, mine, private) == {
        "TEAM_A": "hunter2", "HF_TOKEN": "hunter2", "PATH": "/opt:/bin",
    }  # fmt: skip
    for other in (WORKER, API, CONTROLLER, spec(env_pass=("TEAM_*",))):
        assert child_environment(caller, other, private) == {"PATH": "/bin"}
    assert "TEAM_A" in child_environment(caller, spec(env_pass=("TEAM_A",)), private)


def test_the_gateway_gets_its_keys_and_what_traces_need() -> None:
    caller = {
        "LAB_API_KEYS": "k",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=x",
        "OTEL_SERVICE_NAME": "lab",
        "DB_PASSWORD": "p",
    }
    api = spec(Component.API, env={"LAB_API_KEYS": "k"})
    assert child_environment(caller, api, ["LAB_API_KEYS"]) == {
        k: caller[k] for k in caller if k != "DB_PASSWORD"
    }
    assert child_environment(caller, CONTROLLER, ["LAB_API_KEYS"]) == {"OTEL_SERVICE_NAME": "lab"}
    assert child_environment(caller, WORKER, ["LAB_API_KEYS"]) == {"OTEL_SERVICE_NAME": "lab"}


NAMES = st.sampled_from([*SECRETS, *HARMLESS, *HUBS, *OURS, "TEAM_A", "MODE"])
CALLERS = st.dictionaries(NAMES, st.sampled_from(["x", "sk-x", "http://a:b@c"]))
PATTERNS = st.lists(st.one_of(NAMES, NAMES.map(lambda n: n[:3] + "*"))).map(tuple)
SPECS = st.builds(
    spec,
    st.sampled_from(Component),
    env=st.dictionaries(NAMES, st.just("own")),
    env_pass=PATTERNS,
    env_only=st.booleans(),
    own_env=st.lists(NAMES).map(tuple),
)
PRIVATE = st.lists(NAMES, max_size=4)


@given(CALLERS, SPECS, PRIVATE)
def test_a_child_gets_its_own_and_a_part_of_its_callers(
    caller: dict[str, str], child: ProcessSpec, private: list[str]
) -> None:
    got = child_environment(caller, child, private)
    assert got.items() <= (caller | dict(child.env)).items() | child.env.items()
    assert child.env.items() <= got.items()
    assert not (got.keys() - child.env.keys()) & OURS
    named = {*child.env, *child.env_pass, *child.own_env}
    for name in got.keys() & set(private) - named:
        assert (child.component, name[:5]) == (Component.API, "OTEL_")


@given(CALLERS, SPECS, PRIVATE, PATTERNS)
def test_passing_more_never_takes_away(
    caller: dict[str, str], child: ProcessSpec, private: list[str], more: tuple[str, ...]
) -> None:
    less = child_environment(caller, child, private)
    assert (
        less.items()
        <= child_environment(caller, replace(child, env_pass=child.env_pass + more), private).items()
    )
    assert child_environment(caller, replace(child, env_only=True), private).items() <= less.items()


def test_a_folder_of_programs_comes_before_the_path_that_it_would_have() -> None:
    caller = {"PATH": "/usr/local/cuda/bin:/usr/bin"}
    placed = spec(path_first="/opt/a b/bin")
    assert child_environment(caller, placed)["PATH"] == "/opt/a b/bin:/usr/local/cuda/bin:/usr/bin"
    own = replace(placed, env={"PATH": "/mine"})
    assert child_environment(caller, own)["PATH"] == "/opt/a b/bin:/mine"
    for nothing in ({}, {"PATH": ""}):
        assert child_environment(nothing, placed)["PATH"] == "/opt/a b/bin:/bin:/usr/bin"


def test_a_python_of_its_own_is_not_told_where_ours_has_its_modules() -> None:
    caller = dict.fromkeys(
        ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONUNBUFFERED", "HF_HOME"), "/ours"
    )
    kept = {"PYTHONUNBUFFERED": "/ours", "HF_HOME": "/ours"}
    own = spec(own_python=True)
    assert child_environment(caller, WORKER) == caller
    assert child_environment(caller, own) == kept
    wanted = replace(own, env={"VIRTUAL_ENV": "/opt/vllm"}, env_pass=("PYTHONPATH",))
    assert child_environment(caller, wanted) == kept | {"VIRTUAL_ENV": "/opt/vllm", "PYTHONPATH": "/ours"}
