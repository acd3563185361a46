"""Plans survive a trip through JSON whole, and what people see holds no secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.errors import PlanError
from llmlaunch.planning.codec import plan_from_json, plan_report, plan_to_json, spec_from_json, spec_to_json
from llmlaunch.planning.types import Component, GpuBudget, Plan, ProcessSpec, Rejection

st.register_type_strategy(Mapping, lambda _: st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@given(st.builds(Plan))
def test_a_plan_survives_json(plan: Plan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


@given(st.builds(ProcessSpec))
def test_a_spec_survives_json(spec: ProcessSpec) -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


def sample() -> Plan:
    spec = ProcessSpec(
        name="m-1",
        component=Component.WORKER,
        argv=("python", "-m", "llmlaunch"),
        env={"HF_TOKEN": "hunter2", "A": "b"},
        host="0.0.0.0",
        port=21002,
        address="http://127.0.0.1:21002",
        gpus=("GPU-1",),
        mask="0",
        secret_env=("HF_TOKEN",),
    )
    return Plan(
        deployment="lab",
        processes=(spec,),
        gpus=(GpuBudget(0, "GPU-1", "L4", 24, 23, 5),),
        rejections=(Rejection("big", "too big"),),
    )


def test_the_report_has_the_documented_shape_and_no_secret() -> None:
    report = plan_report(sample())
    assert "hunter2" not in json.dumps(report)
    assert set(report) >= {"deployment", "processes", "gpus", "rejections"}
    (process,) = report["processes"]
    assert set(process) == {
        "name", "component", "model", "names", "engine", "host", "port", "address", "gpus", "mask", "vram_bytes",
        "argv", "env", "reason", "engine_reason",
    }  # fmt: skip
    assert process["component"] == "worker"
    assert process["env"] == {"HF_TOKEN": "***", "A": "b"}
    assert report["gpus"] == [
        {
            "index": 0,
            "uuid": "GPU-1",
            "name": "L4",
            "total_bytes": 24,
            "free_bytes": 23,
            "planned_bytes": 5,
        }
    ]
    assert report["rejections"] == [{"model": "big", "reason": "too big"}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("deployment"), "plan lacks deployment"),
        (lambda p: p.update(colour="red"), "plan has unknown colour"),
        (lambda p: p.update(processes={}), "plan.processes is dict, expected a list"),
        (lambda p: p["processes"][0].update(port="80"), "plan.processes[0].port is str, expected an integer"),
        (lambda p: p["processes"][0].update(port=True), "plan.processes[0].port is bool"),
        (lambda p: p["processes"][0].update(component="db"), "controller | worker | api"),
        (lambda p: p["processes"][0]["env"].update(HF_TOKEN=7), "plan.processes[0].env.HF_TOKEN is int"),
        (lambda p: p["processes"].append(None), "plan.processes[1] is NoneType, expected an object"),
    ],
)
def test_a_wrong_plan_is_named(change: Any, says: str) -> None:
    data = plan_to_json(sample())
    change(data)
    with pytest.raises(PlanError) as error:
        plan_from_json(data)
    assert says in error.value.message
    assert "hunter2" not in error.value.message


def test_what_a_version_before_wrote_is_read() -> None:
    """It lacks the fields that were added since; each of them has a default."""
    data = plan_to_json(sample())
    for name in ("api_keys_file", "api_keys_variable"):
        del data["processes"][0][name]
    del data["private_env"]
    assert plan_from_json(data) == sample()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_json_is_a_plan_or_a_plan_error(data: object) -> None:
    with pytest.raises(PlanError):
        plan_from_json(data)
