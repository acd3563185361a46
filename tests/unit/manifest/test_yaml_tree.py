"""What YAML itself allows, and what a hostile or broken file may not do."""

from __future__ import annotations

import pytest

from llmlaunch.errors import ManifestError
from llmlaunch.manifest.types import GpuPinned
from tests.unit.manifest.reading import manifest, places, problem


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("models: [a\n", 2, 1, "the end of the file"),
        ("models:\n\t- a\n", 2, 1, "a tab; YAML indents with spaces"),
        ("models: [a]\n  b: c\n", 2, 3, "YAML syntax"),
        ("models:\n- a\n---\nmodels: [b]\n", 3, 1, "a second document"),
        ("models: [*nope]\n", 1, 10, "undefined alias 'nope'"),
        ('models: ["\\q"]\n', 1, 12, "unknown escape"),
        ('models: ["\\UFFFFFFFF"]\n', 1, 13, "an invalid escape sequence"),
        ("models: [a\x07]\n", 1, 11, "a character that YAML does not allow"),
        ("models: [${A}]\n", 1, 11, 'a variable needs quotes: "${NAME}"'),
        ("", 1, 1, "the file is empty"),
        ("# only a comment\n", 1, 1, "the file is empty"),
        ("models: [a]\nmodels: [b]\n", 2, 1, "duplicate key 'models'"),
        ("models: [a]\napi: {port: 1, port: 2}\n", 2, 16, "duplicate key 'port'"),
        ("models: [a]\n? [x, y]\n: z\n", 2, 3, "a key must be a plain string"),
        ("models: [a]\napi: {<<: 3}\n", 2, 7, "<< merges mappings only"),
        ("models: [!mine a]\n", 1, 10, "unsupported YAML tag !mine"),
        ("models: [!!python/object/apply:os.system [ls]]\n", 1, 10, "unsupported YAML tag"),
    ],
)
def test_broken_file(text: str, line: int, column: int, says: str) -> None:
    found = places_and_texts(text)
    assert (line, column) in [place for place, _ in found]
    assert any(says in said for _, said in found)


def places_and_texts(text: str) -> list[tuple[tuple[int, int], str]]:
    with pytest.raises(ManifestError) as caught:
        manifest(text)
    lines = text.count("\n") + 1
    assert all(1 <= p.line <= lines and p.column >= 1 for p in caught.value.problems)
    return [((p.line, p.column), str(p)) for p in caught.value.problems]


def test_alias_bomb() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join(['*' + old] * 10)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    found = problem("\n".join([*lines, "models: *i\n"]))
    assert "more than 10000 values once aliases are expanded" in found.message
    assert found.line <= len(lines)


def test_merge_bomb() -> None:
    lines = ["a: &a {x: 1}"]
    lines += [
        f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 10)}]}}"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert "more than 10000 values" in problem("\n".join([*lines, "models: [*i]\n"])).message


@pytest.mark.parametrize(
    "text", ["models: &a [x, *a]\n", "models: &a [{model: *a}]\n", "models: [&a {<<: *a}]\n"]
)
def test_an_alias_of_itself(text: str) -> None:
    assert "this alias refers to a value that contains it" in problem(text).message


@pytest.mark.parametrize(
    "text", ["[" * 5000, "models: " + "[" * 60 + "]" * 60, "{a: " * 3000, "- " * 3000 + "a"]
)
def test_deep_nesting(text: str) -> None:
    found = problem(text)
    assert "nested deeper than 40 levels" in found.message
    assert found.line == 1


def test_many_values() -> None:
    found = problem("models:\n" + "- a\n" * 30_000)
    assert "more than 10000 values" in found.message


def test_merge_keys_and_anchors() -> None:
    spec = manifest(
        """\
        models:
          - &base {model: a, engine: vllm, gpus: [0], env: {A: 1}, stop_grace: 5}
          - <<: *base
            model: b
            gpus: [1]
          - {<<: [{replicas: 3, dtype: float32}, *base], model: c, dtype: float16}
        """
    )
    a, b, c = spec.models
    assert [m.engine for m in spec.models] == ["vllm"] * 3
    assert (a.gpus, b.gpus, c.gpus) == (GpuPinned((0,)), GpuPinned((1,)), GpuPinned((0,)))
    assert (c.replicas, c.dtype, c.stop_grace_s, dict(c.env)) == (3, "float16", 5.0, {"A": "1"})


def test_mistakes_in_merged_values_are_told_at_the_anchor() -> None:
    text = "models:\n- &b\n  model: a\n  vram: lots\n- <<: *b\n  model: c\n"
    assert places(text) == [(4, 9)]


def test_an_alias_stands_where_it_is_written() -> None:
    text = "models:\n- &b {model: a}\n- c\n- *b\n"
    found = problem(text)
    assert (found.line, found.column) == (2, 14)
    position = manifest("models:\n- &b c\n- d\n").models[1].position
    assert position is not None
    assert position.line == 3
    assert places("models:\n- &b 3\n- c\n- *b\n") == [(2, 3), (4, 3)]
