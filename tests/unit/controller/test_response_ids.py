"""An id leads to the worker that gave it, and to no other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.controller.response_ids import giver, is_marked, marked_id

NAMES = st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=20, unique=True)


@given(NAMES, st.binary(min_size=20, max_size=20), st.data())
def test_an_id_leads_to_its_giver(names: list[str], draw: bytes, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    identity = marked_id("resp", name, draw)
    assert len(identity) == len("resp_") + 48
    assert is_marked(identity)
    assert giver([identity], names) == name
    assert giver([identity], [other for other in names if other != name]) is None


def test_of_several_ids_the_first_that_tells_decides() -> None:
    one, two = marked_id("msg", "one", bytes(20)), marked_id("fc", "two", bytes(20))
    assert giver(["msg_1", two, one], ["one", "two"]) == "two"
    assert giver([two, one], ["one"]) == "one"
    assert giver([], ["one"]) is None


@given(st.text(max_size=80))
def test_other_ids_lead_nowhere(identity: str) -> None:
    assert giver([identity], ["http://127.0.0.1:1"]) is None
    assert not is_marked("resp_" + "0" * 32)
