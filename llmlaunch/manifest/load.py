"""YAML → :class:`Manifest`, or every mistake of the file at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmlaunch.common.spelling import nearest
from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest.file import MAX_BYTES, read_bytes
from llmlaunch.manifest.reader import Reader
from llmlaunch.manifest.types import Manifest
from llmlaunch.manifest.yaml_document import YamlDocument
from llmlaunch.manifest.yaml_nodes import too_large
from llmlaunch.manifest.yaml_tree import read


def load(path: str | Path, env: Mapping[str, str]) -> Manifest:
    """Read and check the manifest at ``path``. Raises ManifestError with everything that is wrong with it."""
    file = str(path)
    try:
        place = Path(path).expanduser()
    except RuntimeError:
        raise _unreadable(file, "no such user") from None
    try:
        raw = read_bytes(place)
        if len(raw) > MAX_BYTES:
            raise ManifestError([too_large(file)])
        text = raw.decode()
    except FileNotFoundError:
        raise _unreadable(file, "no such file", suggestion=_neighbour(place)) from None
    except IsADirectoryError:
        inside = place / "deploy.yaml"
        found = str(inside) if inside.exists() else ""
        raise _unreadable(file, "this is a folder, not a file", expected="a file", suggestion=found) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise ManifestError([Problem(file, line, column, "the file is not UTF-8 text")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _unreadable(file, f"the file cannot be read: {reason}") from None
    return loads(text, file=file, env=env, base=place.absolute().parent, path=str(place.absolute()))


def loads(
    text: str,
    file: str = "<string>",
    *,
    env: Mapping[str, str],
    base: Path | None = None,
    path: str | None = None,
) -> Manifest:
    """The manifest that ``text`` holds. Relative paths start at ``base``. Raises ManifestError."""
    tree = read(text.removeprefix("\ufeff"), file, env)
    if not isinstance(tree.data, dict):
        tree.problem((), "a manifest is a mapping", expected="models: with a list under it")
        raise ManifestError(_sorted(tree))
    manifest = Reader(tree, base or Path.cwd()).manifest(path)
    if tree.problems:
        raise ManifestError(_sorted(tree))
    return manifest


def _sorted(tree: YamlDocument) -> list[Problem]:
    # An anchor's mistake is met again at each alias, and a default's at each model: it is told once.
    return sorted(dict.fromkeys(tree.problems), key=lambda p: (p.line, p.column))


def _unreadable(file: str, message: str, *, expected: str = "", suggestion: str = "") -> ManifestError:
    return ManifestError([Problem(file, 0, 0, message, expected, suggestion)])


def _neighbour(place: Path) -> str:
    try:
        names = sorted(p.name for p in place.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError:
        return ""
    found = nearest(place.name, names) or (names[0] if len(names) == 1 else "")
    return str(place.parent / found) if found else ""
