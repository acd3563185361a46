"""Boxes of GPUs, models and manifests for the planner's tests, made by hand and by hypothesis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from llmlaunch.hardware.types import (
    ComputeMode,
    Gpu,
    GpuProcess,
    Inventory,
    Link,
    LinkKind,
    MemoryKind,
    MigDevice,
)
from llmlaunch.manifest.types import (
    EngineName,
    GpuAuto,
    GpuCpu,
    GpuPinned,
    Manifest,
    ModelSpec,
)
from llmlaunch.models.facts import LayerCache, ModelFacts
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Plan, PlanningContext, ProcessSpec

GiB = 1 << 30
MiB = 1 << 20

LLAMA = ModelFacts(
    source="llama-3-8b",
    path="/models/llama-3-8b",
    local=True,
    format="safetensors",
    parameters=8_030_261_248,
    weight_bytes=16_060_522_496,
    dtype="bfloat16",
    layers=32,
    hidden_size=4096,
    intermediate_size=14336,
    attention_heads=32,
    layer_caches=(LayerCache(32, kv_heads=8, key_dim=128, value_dim=128),),
    vocab_size=128_256,
    context_length=8192,
)
SMOLLM = ModelFacts(
    source="smollm2",
    path="/models/smollm2",
    local=True,
    format="safetensors",
    parameters=134_515_008,
    weight_bytes=269_030_016,
    dtype="bfloat16",
    layers=30,
    hidden_size=576,
    intermediate_size=1536,
    attention_heads=9,
    layer_caches=(LayerCache(30, kv_heads=3, key_dim=64, value_dim=64),),
    vocab_size=49_152,
    context_length=8192,
)
DEEPSEEK = ModelFacts(
    source="deepseek-v3",
    path="/models/deepseek-v3",
    local=True,
    format="safetensors",
    parameters=671_026_419_200,
    weight_bytes=688_586_727_753,
    dtype="float8_e4m3fn",
    quantisation="fp8",
    layers=61,
    hidden_size=7168,
    intermediate_size=18432,
    attention_heads=128,
    vocab_size=129_280,
    context_length=163_840,
    layer_caches=(LayerCache(61, kv_heads=128, key_dim=192, value_dim=128, latent=576),),
)
GGUF = replace(
    LLAMA, source="llama.gguf", path="/models/llama.gguf", format="gguf", dtype="Q8_0", quantisation="Q8_0"
)
FACTS = {"llama": LLAMA, "smollm2": SMOLLM, "deepseek": DEEPSEEK, "gguf": GGUF}


def uuid(index: int, kind: str = "GPU") -> str:
    return f"{kind}-{index:08x}-1111-2222-3333-444444444444"


def gpu(index: int, total: int = 80, used: int = 0, name: str = "NVIDIA A100-SXM4-80GB") -> Gpu:
    """Sizes in GiB; what is in use belongs to a stranger."""
    return Gpu(
        index=index,
        uuid=uuid(index),
        name=name,
        pci_bus=f"00000000:{index:02X}:00.0",
        total_bytes=total * GiB,
        reserved_bytes=GiB // 2,
        used_bytes=used * GiB,
        free_bytes=(total - used) * GiB - GiB // 2,
        processes=(GpuProcess(4711, used * GiB, "python"),) if used else (),
    )


def mig_gpu(index: int, parts: int, each: int = 10) -> Gpu:
    """An A100 in MIG mode with instances of ``each`` GiB."""
    found = tuple(
        MigDevice(
            uuid(index * 16 + i, "MIG"), f"MIG 1g.{each}gb", each * GiB, each * GiB, 0, gpu_instance=i, compute_instance=0
        )
        for i in range(parts)
    )  # fmt: skip
    return replace(gpu(index), mig_enabled=True, mig=found)


def box(*gpus: Gpu, links: tuple[Link, ...] = ()) -> Inventory:
    return Inventory(gpus=gpus, links=links, driver="570.10", cuda="12.8")


def nvlink_pairs(*pairs: tuple[int, int], among: int) -> tuple[Link, ...]:
    """NVLink between the pairs, the system's way between all others."""
    return tuple(
        Link(uuid(a), uuid(b), LinkKind.NVLINK if (a, b) in pairs else LinkKind.SYSTEM, 4 if (a, b) in pairs else 0)
        for a in range(among)
        for b in range(a + 1, among)
    )  # fmt: skip


def model(name: str = "llama", **changes: Any) -> ModelSpec:
    """``name`` is a key of FACTS, and the served name unless ``names`` says otherwise."""
    return replace(ModelSpec(model=name, names=(name,)), **changes)


def manifest(*models: ModelSpec, **changes: Any) -> Manifest:
    return replace(Manifest(name="lab", models=models), **changes)


def workers(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Devices by worker."""
    return {spec.name: spec.gpus for spec in plan.processes if spec.component == "worker"}


def as_used(inventory: Inventory, plan: Plan) -> Inventory:
    """What NVML shows once every process of ``plan`` has loaded and holds its claim."""
    claims: dict[str, int] = {}
    for spec in plan.processes:
        for where, claim in zip(spec.gpus, spec.vram_per_gpu, strict=True):
            claims[where] = claims.get(where, 0) + claim
    return replace(
        inventory,
        gpus=tuple(
            replace(
                g,
                used_bytes=g.used_bytes + claims.get(g.uuid, 0),
                free_bytes=g.free_bytes - claims.get(g.uuid, 0),
                mig=tuple(
                    replace(
                        m,
                        used_bytes=m.used_bytes + claims.get(m.uuid, 0),
                        free_bytes=m.free_bytes - claims.get(m.uuid, 0),
                    )
                    for m in g.mig
                ),
            )
            for g in inventory.gpus
        ),
    )


@st.composite
def inventories(draw: st.DrawFn, most: int = 6) -> Inventory:
    """Boxes with mixed GPUs, strangers' memory, MIG, lost ones, compute modes and random links."""
    gpus: list[Gpu] = []
    for index in range(draw(st.integers(0, most))):
        total, name = draw(st.sampled_from([(24, "NVIDIA L4"), (80, "NVIDIA A100-SXM4-80GB")]))
        kind = draw(st.sampled_from(["whole", "whole", "whole", "mig", "lost", *ComputeMode]))
        if kind == "mig":
            gpus.append(mig_gpu(index, draw(st.integers(0, 7))))
        else:
            one = gpu(index, total, draw(st.integers(0, total - 1)), name)
            if isinstance(kind, ComputeMode):
                one = replace(one, compute_mode=kind)
            gpus.append(replace(one, lost="GPU is lost") if kind == "lost" else one)
    links = tuple(
        Link(a.uuid, b.uuid, draw(st.sampled_from(LinkKind)), draw(st.integers(0, 18)))
        for i, a in enumerate(gpus)
        for b in gpus[i + 1 :]
    )
    visible = None
    if gpus and draw(st.integers(0, 4)) == 0:
        names = [u for g in gpus for u in (g.uuid, *(m.uuid for m in g.mig))]
        visible = tuple(draw(st.lists(st.sampled_from(names), unique=True)))
    return replace(box(*gpus, links=links), visible=visible)


@st.composite
def model_specs(draw: st.DrawFn, served: str) -> ModelSpec:
    engine = draw(st.sampled_from(["transformers", "transformers", "vllm", "sglang", "command"]))
    gpus = draw(
        st.one_of(
            st.just(GpuAuto()),
            st.builds(GpuAuto, st.sampled_from([1, 2, 4])),
            st.just(GpuCpu()),
            st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True).map(
                lambda d: GpuPinned(tuple(d))
            ),
        )
    )
    return model(
        draw(st.sampled_from(["llama", "smollm2"])),
        names=(served,),
        engine=EngineName(engine),
        command=("serve", "{port}") if engine == "command" else (),
        gpus=gpus,
        replicas=draw(st.integers(1, 4)),
        vram_bytes=draw(st.one_of(st.none(), st.integers(1, 60).map(lambda g: g * GiB + 1))),
    )


@st.composite
def manifests(draw: st.DrawFn, most: int = 4) -> Manifest:
    return manifest(*(draw(model_specs(f"m{i}")) for i in range(draw(st.integers(1, most)))))


VLLM = EngineName.VLLM


def planned(*models: ModelSpec, on: Inventory, context: PlanningContext | None = None) -> Plan:
    return plan(manifest(*models), on, FACTS, context or PlanningContext())


def spec(made: Plan, name: str) -> ProcessSpec:
    return next(s for s in made.processes if s.name == name)


def reason(made: Plan) -> str:
    (rejection,) = made.rejections
    return rejection.reason


BARE = Inventory(note="no NVIDIA driver: libnvidia-ml.so.1 not found")


def processes(
    *models: ModelSpec, context: PlanningContext | None = None, **changes: Any
) -> dict[str, ProcessSpec]:
    """What runs of these models on a box without GPUs, by name."""
    made = plan(manifest(*models, **changes), box(), FACTS, context or PlanningContext())
    return {spec.name: spec for spec in made.processes}


def gb10(available: int = 100, total: int = 120, index: int = 0) -> Gpu:
    """A GPU that uses main memory; sizes in GiB."""
    return replace(
        gpu(index, name="NVIDIA GB10"),
        total_bytes=total * GiB,
        reserved_bytes=0,
        used_bytes=(total - available) * GiB,
        free_bytes=available * GiB,
        memory=MemoryKind.MAIN,
        compute_capability=(12, 1),
    )


def untold(index: int = 0, total: int = 0) -> Gpu:
    """A GPU whose driver tells no figures of memory; ``total`` (GiB) is that of all GPUs of its name."""
    return replace(
        gpu(index, name="Odd"),
        total_bytes=total * GiB,
        reserved_bytes=0,
        free_bytes=0,
        memory=MemoryKind.UNKNOWN,
        memory_error="Unknown Error",
    )
