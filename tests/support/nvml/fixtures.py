"""The fixtures of the mock NVML; ``tests/conftest.py`` loads them for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nvml import MockNvml, build

FOUR_GPUS = """\
sys driver=580.95.05 cuda=13000
gpu name="NVIDIA H100 80GB HBM3" total=81559 reserved=527 util=37 temp=41 power=118 limit=700 cc=9.0 bus=0000:1B:00.0 nvlink=18
gpu name="NVIDIA H100 80GB HBM3" total=81559 reserved=527 cc=9.0 limit=700 bus=0000:43:00.0 nvlink=18
gpu name="NVIDIA A100-SXM4-40GB" total=40960 reserved=500 cc=8.0 limit=400 bus=0000:9C:00.0 numa=1
gpu name="NVIDIA L4" uuid=GPU-11111111-2222-3333-4444-555555555555 total=23034 reserved=450 cc=8.9 limit=72 bus=0000:D1:00.0 numa=1
"""


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``nvml_library(*symbols)``: the folder of the mock library without these symbols, built once each."""
    built: dict[tuple[str, ...], Path] = {}

    def library(*without: str) -> Path:
        if without not in built:
            built[without] = build(tmp_path_factory.mktemp("nvml"), without)
        return built[without]

    return library


@pytest.fixture
def mock_nvml(tmp_path: Path, nvml_library: Callable[..., Path]) -> MockNvml:
    """Two H100 joined by NVLink, an A100 and an L4 on the other socket, until the test writes something else."""
    mock = MockNvml(nvml_library(), tmp_path / "gpus.txt")
    mock.write(FOUR_GPUS)
    return mock
