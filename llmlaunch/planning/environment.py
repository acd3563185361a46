"""What a process inherits of its caller's environment: all but secrets that are not its own. Pure.

::

    the caller's environment (of `up`)
      │  less: names and values that look like secrets      unless env_pass names them, the model's own env: or
      │        variables that belong to somebody else  ──►  command: refers to them, or a hub needs them to download
      │        keys that the deployment itself hands out (never passed on)
      ▼
    + the plan's own variables (``ProcessSpec.env``)  =  the child's environment

A model's process runs code that its operator did not write. With the whole environment of a shell it could read that
shell's cloud account, and the API keys of the endpoint it stands behind.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath

from llmlaunch.common import variables
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.planning.types import Component, ProcessSpec

_SECRET_WORDS = frozenset((
    "KEY", "KEYS", "APIKEY", "APIKEYS", "TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "PASSPHRASE",
    "PASS", "PWD", "CREDENTIAL", "CREDENTIALS", "CREDS", "AUTH", "JWT", "PAT", "DSN", "COOKIE", "COOKIES", "WEBHOOK",
    "PRIVATE",
))  # fmt: skip
_SECRET_PART = re.compile(
    r"PASSWORD|PASSWD|SECRET|CREDENTIAL|APIKEY|API_KEY|ACCESS_?KEY|TOKEN$|(?:AUTH|API|ACCESS)_TOKENS$"
)
_SECRET_FAMILY = re.compile(r"AWS_|AZURE_|OTEL_.*HEADERS$")
"""Names without a telling word that carry credentials or name accounts."""
_NO_SECRETS = frozenset(("PWD", "OLDPWD"))
_HUBS = frozenset((
    "HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "MODELSCOPE_API_TOKEN", "MODELSCOPE_CREDENTIALS_PATH",
))  # fmt: skip
"""What an engine needs to download a model that not everybody may have."""
_SECRET_VALUE = re.compile(
    r"(?<=[A-Za-z0-9+.-])://[^/?#\s@:]*:[^/?#\s@]+@"
    r"|^(?:sk-|hf_|ghp_|github_pat_|glpat-|xox[abp]-|AKIA|-----BEGIN )"
)
"""A URL with a password, and what well-known services let their keys begin with.

Nothing here may be read twice: a value can be as long as the kernel allows, 128 KiB.
"""
_PROXIES = frozenset(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY"))
"""Proxies that a download needs; their URLs may hold passwords."""
OURS = frozenset((variables.TOKEN, variables.WORKER_KEY, variables.WORKER_KEYS, variables.API_KEY))
"""What a deployment gives to single processes, and the key of a client: never inherited."""
OF_A_PYTHON = frozenset(("PYTHONPATH", "PYTHONHOME", "PYTHONEXECUTABLE", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"))
"""What would make another interpreter take its modules from the caller's."""
_PATH = "/bin:/usr/bin"
"""Where programs are looked for without a PATH, as ``os.defpath`` has it."""
_SHARED_FOLDERS = (".", "/bin", "/usr/bin", "/usr/local/bin")
"""Not moved before others on a PATH: what stands there is meant to come when nothing else does. ".": no folder is known."""
_MINIMUM = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LLMLAUNCH_HOME", "LLMLAUNCH_CACHE",
))  # fmt: skip
_MINIMUM_FAMILIES = ("LC_", "XDG_")
_OF_EVERYBODY = re.compile(
    r"(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|TEMP|TMP|TERM|HOSTNAME|PWD|VIRTUAL_ENV|NO_PROXY)"
    r"|(?:HTTPS?|ALL|FTP)_PROXY"
    r"|(?:LC|XDG|LD|PYTHON|CONDA|CUDA|NVIDIA|NCCL|GLOO|HIP|ROCM?|ROCR|HSA|OMP|MKL|OPENBLAS|SSL|HF|TRANSFORMERS"
    r"|MODELSCOPE|TORCH|PYTORCH|TRITON|VLLM|SGLANG|LLAMA|GGML|LLMLAUNCH)(?:_.*)?"
    r"|PYTHON[A-Z]*"
)
"""Variables of the machine and of libraries. One model that builds on them (``PATH: "/opt/x:${PATH}"``) does not make
them its own."""


def looks_secret(name: str, value: str = "") -> bool:
    """Whether a variable called ``name`` most likely holds a credential, or ``value`` looks like one."""
    upper = name.upper()
    if upper in _NO_SECRETS:
        return False
    if _SECRET_FAMILY.match(upper) or _SECRET_PART.search(upper):
        return True
    if not _SECRET_WORDS.isdisjoint(upper.split("_")):
        return True
    return upper not in _PROXIES and _SECRET_VALUE.search(value) is not None


def private_names(referred: Iterable[str], keys_variable: str | None) -> tuple[str, ...]:
    """Variables that only their owners get, sorted: those that models refer to, and the one with the API keys."""
    found = {name for name in referred if not _OF_EVERYBODY.fullmatch(name.upper())}
    return tuple(sorted(found | ({keys_variable} if keys_variable else set())))


def child_environment(
    caller: Mapping[str, str], spec: ProcessSpec, private: Collection[str] = ()
) -> dict[str, str]:
    """The environment of ``spec``'s process. ``private`` are the deployment's :func:`private_names`."""
    found = {name: value for name, value in caller.items() if _passes(name, value, spec, private)} | dict(
        spec.env
    )
    if spec.path_first:
        found["PATH"] = f"{spec.path_first}:{found.get('PATH') or _PATH}"
    return found


def programs_folder(model: ModelSpec) -> str:
    """The folder of the Python or the program that its engine is; empty where that is no folder of its own."""
    folder = str(PurePath(model.python or model.executable or "").parent)
    return "" if folder in _SHARED_FOLDERS else folder


def path_of(model: ModelSpec, caller: Mapping[str, str]) -> str:
    """The PATH that a process of ``model`` will have, as :func:`child_environment` makes it from its spec."""
    places = model.env.get("PATH") or caller.get("PATH") or _PATH
    first = programs_folder(model)
    return f"{first}:{places}" if first else places


def seen_from(folder: str, places: str) -> str:
    """``places``, a PATH, as a process sees it that starts in ``folder``."""
    return ":".join(str(PurePath(folder, place)) for place in places.split(":"))


def _passes(name: str, value: str, spec: ProcessSpec, private: Collection[str]) -> bool:
    if name in OURS:
        return False
    if spec.component is not Component.WORKER:
        # The gateway sends traces; neither it nor the controller downloads anything.
        if spec.component is Component.API and name.startswith("OTEL_"):
            return True
        return name not in private and not looks_secret(name, value)
    if name in spec.env_pass or name in spec.own_env:
        return True
    if spec.own_python and name in OF_A_PYTHON:
        return False
    if name in private:  # somebody else's: a pattern does not reach it
        return False
    if any(p.endswith("*") and name.startswith(p[:-1]) for p in spec.env_pass):
        return True
    if name in _MINIMUM:
        return True
    if spec.env_only:
        return name.startswith(_MINIMUM_FAMILIES) and not looks_secret(name, value)
    return name in _HUBS or not looks_secret(name, value)
