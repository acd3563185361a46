"""A mock NVML, so that the real pynvml can be tested on machines without a driver.

``mock_nvml`` (a fixture, see :mod:`tests.support.nvml.fixtures`) builds a ``libnvidia-ml.so.1`` from ``mocknvml.c``
once per session and gives each test a :class:`MockNvml`. The dynamic linker reads LD_LIBRARY_PATH when a process
starts, so only child processes started with :attr:`MockNvml.env` see the mock. Never hand it to one that imports
torch: it would look for CUDA behind it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("mocknvml.c")


def build(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Compile the library into ``folder`` (with the symbols ``without`` left out) and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = [f"-D{symbol}=hidden_{symbol}" for symbol in without]
    output = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", "-Wno-stringop-truncation", "-shared", "-fPIC",
         "-Wl,-soname,libnvidia-ml.so.1", *hidden, "-o", output, SOURCE, "-lpthread"],
        check=True,
    )  # fmt: skip
    return folder


@dataclass(frozen=True, slots=True)
class MockNvml:
    """One test's GPUs. ``library`` is the folder of the built library, ``file`` describes the GPUs."""

    library: Path
    file: Path

    @property
    def env(self) -> dict[str, str]:
        """What a child process must be started with to see the mock, on top of its other variables."""
        return {"LD_LIBRARY_PATH": str(self.library), "MOCK_NVML": str(self.file)}

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment with the mock in it and without the device masks of the machine."""
        masks = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"}
        kept = {key: value for key, value in os.environ.items() if key not in masks}
        return {**kept, **self.env, **(extra or {})}

    def write(self, text: str) -> None:
        """Describe the GPUs anew (the format is in mocknvml.c). Running programs see it at their next call."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def procdir(self) -> Path:
        """A folder where a process claims memory with a file named by its pid, holding lines ``gpuindex MiB``.

        Name it in the description: ``sys procdir=…``. The claim is freed when the process is gone.
        """
        folder = self.file.with_name("procdir")
        folder.mkdir(exist_ok=True)
        return folder
