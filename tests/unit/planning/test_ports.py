"""Names, hosts, addresses and ports."""

from __future__ import annotations

import pytest

from llmlaunch.errors import PlanError, PortTakenError
from llmlaunch.hardware.types import OccupiedPort
from llmlaunch.manifest.types import ApiSpec, ControllerSpec, GpuCpu
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Plan, PlanningContext
from tests.unit.planning.builders import FACTS, box, manifest, model, processes


def test_default_ports() -> None:
    found = processes(model(replicas=2), model("smollm2"))
    assert {name: spec.port for name, spec in found.items()} == {
        "controller": 21001,
        "llama-1": 21002,
        "llama-2": 21003,
        "smollm2-1": 21004,
        "api": 8000,
    }
    assert list(found) == ["controller", "llama-1", "llama-2", "smollm2-1", "api"]
    assert "http://127.0.0.1:21001" in found["llama-1"].argv


def test_a_taken_port_is_skipped_when_it_was_free_to_choose() -> None:
    taken = tuple(OccupiedPort("127.0.0.1", port, "nginx (pid 80)") for port in (21001, 21002, 21004, 8000))
    found = processes(model(replicas=2), context=PlanningContext(occupied_ports=taken))
    assert {name: spec.port for name, spec in found.items()} == {
        "controller": 21003,
        "llama-1": 21005,
        "llama-2": 21006,
        "api": 8001,
    }


def test_a_port_on_another_host_is_free() -> None:
    taken = (OccupiedPort("10.0.0.5", 21002, "nginx (pid 80)"),)
    assert processes(model(), context=PlanningContext(occupied_ports=taken))["llama-1"].port == 21002


def test_ports_that_were_asked_for_and_are_taken_are_all_named_with_their_holders() -> None:
    taken = (
        OccupiedPort("0.0.0.0", 21002, "nginx (pid 80)"),
        OccupiedPort("127.0.0.1", 8000, "curl (pid 7)"),
    )
    with pytest.raises(PortTakenError) as error:
        processes(model(port=21002), context=PlanningContext(occupied_ports=taken), api=ApiSpec(port=8000))
    assert "llama-1 requests port 21002 on 127.0.0.1, which nginx (pid 80) holds" in error.value.message
    assert "api requests port 8000 on 127.0.0.1, which curl (pid 7) holds" in error.value.message


def test_the_next_replicas_count_up_from_the_port_of_the_first() -> None:
    taken = (OccupiedPort("127.0.0.1", 30001, "nginx (pid 80)"),)
    found = processes(model(port=30000, replicas=3), context=PlanningContext(occupied_ports=taken))
    assert [found[f"llama-{n}"].port for n in (1, 2, 3)] == [30000, 30002, 30003]


def test_a_free_choice_leaves_ports_alone_that_others_asked_for() -> None:
    found = processes(model(), model("smollm2", port=21002), controller=ControllerSpec(port=21003))
    assert found["llama-1"].port == 21004


def test_a_running_component_keeps_its_port_and_that_is_no_conflict() -> None:
    before = processes(model(), model("smollm2", port=21010))
    occupied = tuple(OccupiedPort("127.0.0.1", spec.port, "python (pid 9)") for spec in before.values())
    context = PlanningContext(running=tuple(before.values()), occupied_ports=occupied)
    assert processes(model(), model("smollm2", port=21010), context=context) == before
    # A model that comes first in the file gets a new port; nobody moves.
    after = processes(model("deepseek"), model(), model("smollm2", port=21010), context=context)
    assert {name: after[name] for name in before} == before
    assert after["deepseek-1"].port == 21003


def test_a_stranger_on_the_port_of_what_is_down_moves_it() -> None:
    before = processes(model(), model("smollm2"))
    stranger = (OccupiedPort("127.0.0.1", before["llama-1"].port, "nginx (pid 80)"),)
    context = PlanningContext(
        running=tuple(before.values()), occupied_ports=stranger, idle=frozenset({"llama-1"})
    )
    after = processes(model(), model("smollm2"), context=context)
    assert after["llama-1"].port == 21004
    assert str(before["llama-1"].port) not in after["llama-1"].argv
    assert {name: after[name] for name in after if name != "llama-1"} == {
        name: before[name] for name in before if name != "llama-1"
    }


def test_its_own_process_is_no_stranger() -> None:
    """It came back between the look at the supervisor and the look at the ports."""
    before = processes(model())
    own = (OccupiedPort("127.0.0.1", 21002, "llama-1 of deployment lab (pid 9)", "lab/llama-1"),)
    context = PlanningContext(
        deployment="lab", running=tuple(before.values()), occupied_ports=own, idle=frozenset(before)
    )
    assert processes(model(), context=context) == before
    asked = processes(model(port=21002), context=context)
    assert asked["llama-1"].port == 21002


def test_a_port_that_was_asked_for_is_refused_also_to_what_ran_there_before() -> None:
    before = processes(model(port=21002))
    stranger = (OccupiedPort("127.0.0.1", 21002, "nginx (pid 80)"),)
    context = PlanningContext(
        running=tuple(before.values()), occupied_ports=stranger, idle=frozenset({"llama-1"})
    )
    with pytest.raises(PortTakenError, match="which nginx"):
        processes(model(port=21002), context=context)


def test_a_default_port_that_moved_is_told_once() -> None:
    taken = (
        OccupiedPort("127.0.0.1", 8000, "python (pid 7)"),
        OccupiedPort("127.0.0.1", 21002, "nginx (pid 80)"),
    )
    first = plan(manifest(model(gpus=GpuCpu())), box(), FACTS, PlanningContext(occupied_ports=taken))
    assert first.notes == ("api listens on port 8001, because python (pid 7) holds 8000",)
    again = plan(
        manifest(model(gpus=GpuCpu())),
        box(),
        FACTS,
        PlanningContext(occupied_ports=taken, running=first.processes),
    )
    assert again.notes == ()
    asked = plan(
        manifest(model(gpus=GpuCpu()), api=ApiSpec(port=8001)),
        box(),
        FACTS,
        PlanningContext(occupied_ports=taken),
    )
    assert asked.notes == ()


def test_a_default_port_that_another_component_asked_for_is_told_too() -> None:
    made = plan(manifest(model(port=8000, gpus=GpuCpu())), box(), FACTS, PlanningContext())
    assert made.notes == ("api listens on port 8001, because another component has 8000",)


def test_a_changed_component_keeps_the_port_it_had() -> None:
    before = processes(model(), model("smollm2"))
    context = PlanningContext(
        running=tuple(before.values()),
        occupied_ports=tuple(
            OccupiedPort("127.0.0.1", spec.port, "python (pid 9)") for spec in before.values()
        ),
    )
    after = processes(model(max_concurrency=3), model("smollm2"), context=context)
    assert after["llama-1"].port == before["llama-1"].port
    assert after["llama-1"] != before["llama-1"]
    assert after["smollm2-1"] == before["smollm2-1"]


def test_a_new_component_does_not_take_the_port_of_one_that_is_still_going_down() -> None:
    before = processes(model("smollm2"))
    after = processes(model(), context=PlanningContext(running=tuple(before.values())))
    assert after["llama-1"].port != before["smollm2-1"].port


def test_no_port_left() -> None:
    with pytest.raises(PlanError, match="no free port for llama-2"):
        processes(model(port=65535, replicas=2))


def test_hosts_of_other_machines_are_refused_with_what_is_local() -> None:
    with pytest.raises(PlanError) as error:
        processes(model(host="10.9.8.7"), context=PlanningContext(local_addresses=frozenset({"192.168.1.5"})))
    assert "model llama: host 10.9.8.7 is not this machine" in error.value.message
    assert "192.168.1.5" in error.value.hint


def test_hosts_that_nobody_can_listen_on_are_refused_by_name() -> None:
    why = "has no address: neither /etc/hosts nor DNS knows this name"
    context = PlanningContext(
        local_addresses=frozenset({"gpu-box-7"}), unusable_hosts={"gpu-box-7": why, "localhost": why}
    )
    with pytest.raises(PlanError) as error:
        processes(model(host="localhost"), api=ApiSpec("gpu-box-7"), context=context)
    assert error.value.message == f"api: host gpu-box-7 {why}\nmodel llama: host localhost {why}"
    assert "/etc/hosts" in error.value.hint


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.7", "localhost", "0.0.0.0", "::", "[::1]", "192.168.1.5", "Box"]
)
def test_local_hosts(host: str) -> None:
    context = PlanningContext(local_addresses=frozenset({"192.168.1.5", "box"}))
    assert processes(model(host=host), context=context)["llama-1"].host == host


def test_the_plan_says_where_it_comes_from() -> None:
    made: Plan = plan(manifest(model(), path="/srv/lab/deploy.yaml"), box(), FACTS, PlanningContext())
    assert (made.deployment, made.manifest_path, made.workdir) == ("lab", "/srv/lab/deploy.yaml", "/srv/lab")
    assert made.served_names == ("llama",)
