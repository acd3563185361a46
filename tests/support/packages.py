"""llmlaunch as its users get it: a wheel in an environment that holds what it declares, and nothing else. Needs no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
_NOT_SHIPPED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "*.so.1")


def build(folder: Path) -> tuple[Path, Path]:
    """Build an sdist from a copy of this tree, and a wheel from the sdist alone; their paths below ``folder``."""
    source, output = folder / "source", folder / "dist"
    shutil.copytree(ROOT, source, ignore=_NOT_SHIPPED)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    shutil.rmtree(source)
    return next(output.glob("*.tar.gz")), next(output.glob("*.whl"))


def environment(folder: Path, wheel: Path) -> Path:
    """The interpreter of a new environment with ``wheel`` and, linked from this one, what the wheel requires."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps",
         "--disable-pip-version-check", str(wheel)],
        check=True,
    )  # fmt: skip
    (packages,) = folder.glob("lib/python*/site-packages")
    (ours,) = packages.glob("llmlaunch-*.dist-info")
    requirements = metadata.Distribution.at(ours).requires or []
    for name in _closure([Requirement(text) for text in requirements]):
        _link(metadata.distribution(name), packages)
    return python


def _closure(requirements: list[Requirement]) -> set[str]:
    """Names of the distributions that these need, and those in turn. Requirements of extras that nobody asks for are left out."""
    found: set[str] = set()
    looked: set[tuple[str, str]] = set()
    open_ends = [(requirement, "") for requirement in requirements]
    while open_ends:
        requirement, extra = open_ends.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        found.add(requirement.name)
        for wanted in ("", *requirement.extras):
            if (requirement.name, wanted) not in looked:
                looked.add((requirement.name, wanted))
                below = metadata.distribution(requirement.name).requires or []
                open_ends += [(Requirement(text), wanted) for text in below]
    return found


def _link(distribution: metadata.Distribution, packages: Path) -> None:
    root = Path(str(distribution.locate_file("")))
    for top in {
        path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")
    }:
        if not (packages / top).exists():
            (packages / top).symlink_to(root / top)
