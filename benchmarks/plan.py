"""How long plan() takes over sizes: ``python benchmarks/plan.py``. The aim: 64 GPUs and 256 replicas under 0.5 s.

The models are a mix of one, two and eight GPUs a replica, on a box with NVLink islands of eight. "again" plans once more while
everything runs, as ``up`` on a running deployment does.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from benchmarks.report import record, table
from llmlaunch.hardware.types import Gpu, Inventory, Link, LinkKind
from llmlaunch.manifest.types import EngineName, GpuAuto, Manifest, ModelSpec
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Plan, PlanningContext
from tests.unit.planning.builders import LLAMA

GiB = 1 << 30
AIM_S = 0.5
SIZES = ((1, 1), (4, 8), (8, 32), (16, 64), (32, 128), (64, 256))
FACTS = replace(LLAMA, source="org/llama-3-8b")


def box(count: int) -> Inventory:
    gpus = tuple(
        Gpu(i, f"GPU-{i:08x}-0000-0000-0000-000000000000", "NVIDIA H200", f"{i:02x}", 141 * GiB, 0, 0, 141 * GiB)
        for i in range(count)
    )  # fmt: skip
    links = tuple(
        Link(a.uuid, b.uuid, LinkKind.NVLINK if a.index // 8 == b.index // 8 else LinkKind.SYSTEM)
        for a in gpus
        for b in gpus[a.index + 1 :]
    )
    return Inventory(gpus=gpus, links=links)


def manifest(gpus: int, replicas: int) -> Manifest:
    """Half of the replicas take one GPU, the rest two, and one in sixteen eight where there are so many."""
    eight = replicas // 16 if gpus >= 8 else 0
    two = (replicas // 2 - eight) if gpus >= 2 else 0
    shares = ((1, replicas - two - eight), (2, two), (8, eight))
    return Manifest(
        "bench",
        tuple(
            ModelSpec(
                "org/llama-3-8b",
                (f"m{count}",),
                EngineName.VLLM,
                gpus=GpuAuto(count),
                replicas=number,
                vram_bytes=20 * GiB,
            )
            for count, number in shares
            if number
        ),
    )


def median(work: Callable[[], Plan], times: int = 5) -> tuple[float, Plan]:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), result


def measure(gpus: int, replicas: int) -> tuple[int, float, float]:
    """Replicas placed, seconds for the first plan, seconds for planning again while all of it runs."""
    inventory, wanted, facts = box(gpus), manifest(gpus, replicas), {"org/llama-3-8b": FACTS}
    first_s, first = median(lambda: plan(wanted, inventory, facts, PlanningContext()))
    again_s, again = median(lambda: plan(wanted, inventory, facts, PlanningContext(running=first.processes)))
    assert again.processes == first.processes
    return len(first.processes) - 2, first_s, again_s


def main() -> int:
    rows, slowest = [], 0.0
    for gpus, replicas in SIZES:
        placed, first_s, again_s = measure(gpus, replicas)
        rows.append(
            [
                gpus,
                replicas,
                placed,
                f"{first_s * 1e3:.1f} ms",
                f"{again_s * 1e3:.1f} ms",
                f"{first_s / AIM_S:.2f}",
            ]
        )
        slowest = max(slowest, first_s, again_s)
    header = [
        "GPUs",
        "replicas",
        "placed",
        "plan",
        "plan again while it runs",
        f"plan / {AIM_S * 1e3:.0f} ms aim",
    ]
    record("Plan", table(header, rows), "llmlaunch")
    return int(slowest > AIM_S)


if __name__ == "__main__":
    sys.exit(main())
