"""Files of environment variables, line by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.manifest.env_file import parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("  A = b c \t", {"A": "b c"}),
        ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
        ("export=1", {"export": "1"}),
        ("# note\n\n \t\n  # A=0\nA=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A= # nothing", {"A": ""}),
        ("A=# nothing", {"A": ""}),
        ("A=a # note", {"A": "a"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=https://x/y?a=b&c=d", {"A": "https://x/y?a=b&c=d"}),
        ("A=p$ss", {"A": "p$ss"}),
        ("A='a # ${b} \\n \"'", {"A": 'a # ${b} \\n "'}),
        ('A="a # b" # note', {"A": "a # b"}),
        ('A="a\\nb\\t\\"c\\" \\\\ \\$ \\q"', {"A": 'a\nb\t"c" \\ $ \\q'}),
        ('A="\\${B}"', {"A": "${B}"}),
        ("A='one\ntwo'\nB=2", {"A": "one\ntwo", "B": "2"}),
        ('A="one\n# two\nB=3"\nB=2', {"A": "one\n# two\nB=3", "B": "2"}),
        ("A=it's", {"A": "it's"}),
        ("A=1\nA=2", {"A": "2"}),
        ('A={"a": "b"}', {"A": '{"a": "b"}'}),
        ("A=ü", {"A": "ü"}),
        ("A=1\n# no line break at the end", {"A": "1"}),
        ("", {}),
    ],
)
def test_what_a_file_says(text: str, found: dict[str, str]) -> None:
    assert parse(text.encode(), "x.env") == (found, [])


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("A=1\nHUNTER2", 2, "no equals sign"),
        ("A-B=HUNTER2", 1, "not a valid environment variable name"),
        ("1A=HUNTER2", 1, "not a valid environment variable name"),
        ("=HUNTER2", 1, "not a valid environment variable name"),
        ("A B=HUNTER2", 1, "not a valid environment variable name"),
        ("\nA='HUNTER2\nB=1", 2, "the quote that A starts with is never closed"),
        ('A="HUNTER2\\"', 1, "the quote that A starts with is never closed"),
        ("A='x\ny' HUNTER2\nB=1", 1, "A goes on after its closing quote"),
        ("A=${HUNTER2}", 1, "variables are not filled in here"),
        ('A="x${HUNTER2}"', 1, "variables are not filled in here"),
        ("A=HUN\0TER2", 1, "NUL"),
    ],
)
def test_mistakes_are_told_with_their_line_and_without_the_value(text: str, line: int, says: str) -> None:
    _, (problem,) = parse(text.encode(), "x.env")
    assert problem.where == f"x.env:{line}:1"
    assert says in problem.message
    assert "HUNTER2" not in str(problem)


def test_every_mistake_is_told_and_the_rest_is_read() -> None:
    found, problems = parse(b"A\nB=1\nC D=2\nE=3", "x.env")
    assert found == {"B": "1", "E": "3"}
    assert [problem.line for problem in problems] == [1, 3]


def test_a_file_that_is_no_text() -> None:
    found, (problem,) = parse(b"A=1\nB=\xff", "x.env")
    assert found == {}
    assert (problem.line, problem.message) == (2, "the file is not UTF-8 text")


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    found, problems = parse(raw, "x.env")
    assert all(name.isidentifier() for name in found)
    assert all(problem.line >= 1 for problem in problems)


TEXT = st.text(st.characters(exclude_characters="\0'\r", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,4}", fullmatch=True), TEXT))
def test_what_stands_in_single_quotes_comes_back(values: dict[str, str]) -> None:
    text = "\n".join(f"{name}='{value}'" for name, value in values.items())
    assert parse(text.encode(), "x.env") == (values, [])
