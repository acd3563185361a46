"""A model in one line: read, written, and the same as its long form."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.manifest import shorthand
from llmlaunch.manifest.shorthand import ShortForm
from llmlaunch.manifest.types import (
    GpuPinned,
)
from tests.unit.manifest.reading import manifest, model, problem, problems

UUID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("m", ShortForm("m")),
        ("THUDM/chatglm3-6b@localhost@21002@2", ShortForm("THUDM/chatglm3-6b", "localhost", 21002, "2")),
        ("m@@@0,1", ShortForm("m", gpus="0,1")),
        ("m@@21002", ShortForm("m", port=21002)),
        ("m@[::1]@21002", ShortForm("m", "::1", 21002)),
        ("m@::1@21002", ShortForm("m", "::1", 21002)),
        ("m@fe80::1%eth0", ShortForm("m", "fe80::1%eth0")),
        ("/data/my models/a b@localhost", ShortForm("/data/my models/a b", "localhost")),
        ("  m @ h @ 1 @ cpu ", ShortForm("m", "h", 1, "cpu")),
        (f"m@@@GPU-{UUID}", ShortForm("m", gpus=f"GPU-{UUID}")),
        ("m@@@", ShortForm("m")),
    ],
)
def test_short_form(text: str, short: ShortForm) -> None:
    assert shorthand.parse(text) == short


_WORD = st.text(st.characters(exclude_characters="@/", exclude_categories=["C", "Z"]), min_size=1)


_MODELS = (
    st.text(st.characters(exclude_characters="@", exclude_categories=["Cc", "Cs"]))
    .map(str.strip)
    .filter(bool)
)


_HOSTS = (
    st.none()
    | st.ip_addresses().map(str)
    | _WORD.filter(lambda h: not (h.startswith("[") and h.endswith("]")))
)


_DEVICES = st.lists(st.integers(0, 99), min_size=1, unique=True).map(lambda d: ",".join(map(str, d)))


_SHORTS = st.builds(
    ShortForm,
    model=_MODELS,
    host=_HOSTS,
    port=st.none() | st.integers(1, 65535),
    gpus=st.none() | st.sampled_from(["auto", "cpu", f"MIG-{UUID}"]) | _DEVICES,
)


@given(_SHORTS)
def test_short_forms_survive_writing_and_reading(short: ShortForm) -> None:
    assert shorthand.parse(shorthand.render(short)) == short


@given(st.text(st.sampled_from("am/@[]:.,019- \\")))
def test_short_forms_are_read_or_refused(text: str) -> None:
    try:
        short = shorthand.parse(text)
    except ValueError:
        return
    assert short.model


def test_short_and_long_form_say_the_same() -> None:
    short, long = manifest(
        """\
        models:
          - org/a@localhost@5000@0,1
          - {model: org/a, names: b, host: localhost, port: 6000, gpus: [0, 1]}
        """
    ).models
    assert (short.model, short.host, short.port, short.gpus) == (
        "org/a",
        "localhost",
        5000,
        GpuPinned((0, 1)),
    )
    assert (long.model, long.host, long.gpus) == (short.model, short.host, short.gpus)


def test_a_path_with_at_is_for_the_long_form(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    assert model("models: [{model: ./a@b}]", base=tmp_path).model == str(tmp_path / "a@b")
    assert "long form" in problem("models: ['./a@b@c@d@e']\n").message


def test_every_mistake_of_a_short_form_is_told() -> None:
    found = problems("models:\n- m@127.0.0.256@99999@1,1\n")
    assert {p.message for p in found} == {
        "host is '127.0.0.256', which is not a valid host",
        "port is 99999, which is out of range",
        "gpus is '1', which is already in the list",
    }
