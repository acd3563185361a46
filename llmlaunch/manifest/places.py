"""What a manifest says of this machine's files, beside the models: programs, folders, and files of environment variables."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest import env_file
from llmlaunch.manifest.file import MAX_BYTES, read_bytes
from llmlaunch.manifest.types import Manifest, ModelSpec


def refuse_missing_places(manifest: Manifest) -> None:
    """Raise ManifestError for every ``python``, ``bin`` and ``workdir`` that is not there or cannot be used.

    Bare names, which are looked for on a PATH, are left to whoever knows the process's environment.
    """
    problems = [problem for model in manifest.models for problem in _missing(model)]
    if problems:
        # Models that inherit a mistake share its place.
        raise ManifestError(list(dict.fromkeys(problems)))


def with_env_files(manifest: Manifest, *, required: bool = True) -> Manifest:
    """``manifest`` with the variables of ``env_file`` in each model's ``env``, which overrides them.

    Not ``required``: files that do not exist are passed over. Raises ManifestError for what is wrong with the files.
    """
    problems: list[Problem] = []
    models = tuple(_with_files(model, required, problems) for model in manifest.models)
    if problems:
        raise ManifestError(list(dict.fromkeys(problems)))
    return replace(manifest, models=models)


def _with_files(model: ModelSpec, required: bool, problems: list[Problem]) -> ModelSpec:
    found: dict[str, str] = {}
    for file in model.env_files:
        try:
            raw = read_bytes(Path(file))
            if len(raw) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        except (FileNotFoundError, NotADirectoryError):
            if required:
                problems.append(_problem(model, "env_file", f"{file} does not exist"))
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(_problem(model, "env_file", f"{file} cannot be read: {why}"))
            continue
        variables, wrong = env_file.parse(raw, file)
        problems += wrong
        found |= variables
    secret = frozenset(found.keys() - model.env.keys())
    return replace(model, env={**found, **model.env}, secret_env=secret) if found else model


def _missing(model: ModelSpec) -> Iterator[Problem]:
    for key, program in (("python", model.python), ("bin", model.executable)):
        if program and "/" in program and (wrong := _unusable(key, Path(program))):
            yield _problem(model, key, *wrong)
    if model.workdir:
        mode = _mode(Path(model.workdir))
        if mode is None:
            yield _problem(model, "workdir", f"{model.workdir} does not exist", "a folder")
        elif not stat.S_ISDIR(mode):
            yield _problem(model, "workdir", f"{model.workdir} is not a folder", "a folder")
        elif not os.access(model.workdir, os.X_OK):
            yield _problem(model, "workdir", f"{model.workdir} cannot be entered: permission denied")


def _unusable(key: str, program: Path) -> tuple[str, str] | None:
    """What is wrong with a program, and what was expected; None: nothing."""
    mode = _mode(program)
    folder = program.parent.parent
    if mode is None and program.is_symlink():
        target = os.path.realpath(program)
        return f"{program} is a link to {target}, which does not exist", "its environment to be made anew"
    if mode is None and key == "python" and _is_folder(folder) and program.parent.name == "bin":
        return f"{folder} has no bin/{program.name}", "the folder of a virtual environment, or an interpreter"
    if mode is None and key == "python" and program.parent.name == "bin":
        return f"{folder} does not exist", f"a virtual environment: python3 -m venv {folder}"
    if mode is None:
        return f"{program} does not exist", "the path of an executable file"
    if stat.S_ISDIR(mode):
        inside = "the executable file in it" if key == "bin" else "an interpreter"
        return f"{program} is a folder", inside
    if not stat.S_ISREG(mode) or not os.access(program, os.X_OK):
        return f"{program} is not executable", "an executable file"
    return None


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _is_folder(path: Path) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _problem(model: ModelSpec, key: str, message: str, expected: str = "") -> Problem:
    where = model.key_positions.get(key) or model.position
    file, line, column = (where.file, where.line, where.column) if where else ("", 0, 0)
    return Problem(file, line, column, f"{key}: {message}", expected)
