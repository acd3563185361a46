"""What the supervisor tells the controller about an engine that does not register itself."""

from __future__ import annotations

import pytest

from llmlaunch.controller.wire import RegisterWorker
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision import registrar


@pytest.mark.parametrize(("known", "told"), [("", None), ("org/m", "org/m")])
def test_the_name_that_the_engine_knows(known: str, told: str | None) -> None:
    spec = ProcessSpec(
        "m-1",
        Component.WORKER,
        ("x",),
        {},
        "127.0.0.1",
        1,
        "http://127.0.0.1:1",
        names=("m",),
        engine_model=known,
    )
    said = RegisterWorker.model_validate(registrar._registration(registrar._Wanted(spec, None), 4096))
    assert (said.engine_model, said.worker_status and said.worker_status.model_names) == (told, ["m"])
