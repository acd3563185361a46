"""Where the kernel keeps what the control groups of this process may use (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1)."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
ROOT = Path("/sys/fs/cgroup")


def control_groups(controller: str, proc: Path = PROC, root: Path = ROOT) -> list[Path]:
    """Folders of the groups that ``controller`` (memory, cpu) limits this process by, of both versions.

    Its own and those around it, outermost first; they need not exist.
    """
    found = [root, root / controller]
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:  # hierarchy:controllers:path
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        at = root / controller if controllers else root
        for part in Path(path).parts[1:]:
            at /= part
            found.append(at)
    return found
