"""Every path on disk, in one place.

With ``LLMLAUNCH_HOME`` set, everything lives under it. Otherwise the XDG folders are used: state and locks in
``$XDG_STATE_HOME/llmlaunch``, sockets in ``$XDG_RUNTIME_DIR/llmlaunch`` (the state folder when there is none,
as in most containers), caches in ``$XDG_CACHE_HOME/llmlaunch``. ``LLMLAUNCH_CACHE`` moves the cache alone, so that
several homes can share converted models. Locks stay with the state, because the runtime folder goes when a user logs out.

Functions here compute paths; :func:`private_dir` is the only one that creates something. ``files`` reads and writes what is there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llmlaunch.common.files import trusted
from llmlaunch.errors import UsageError

SYSTEMD_FOLDERS = "/run/user"


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification tells programs to ignore relative values.
    return Path(value) if value.startswith("/") else _expanded("~") / default


def _home() -> Path | None:
    value = os.environ.get("LLMLAUNCH_HOME", "")
    return _expanded(value) if value else None


def _expanded(value: str) -> Path:
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"cannot find the home folder of {value.partition('/')[0]}",
            hint="set LLMLAUNCH_HOME to a folder for state, logs and caches",
        ) from None


def state_root() -> Path:
    """Where deployments keep their state and logs."""
    home = _home()
    return home / "state" if home else _xdg("XDG_STATE_HOME", ".local/state") / "llmlaunch"


def run_root() -> Path:
    """Where control sockets live; lost at reboot when the system offers such a place.

    Shells that cron or sudo start lack the variable: then systemd's folder of this user is meant, so that they find the
    same deployments.
    """
    home = _home()
    if home:
        return home / "run"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"{SYSTEMD_FOLDERS}/{os.getuid()}"
    if runtime.startswith("/") and os.access(runtime, os.W_OK):
        return Path(runtime) / "llmlaunch"
    return state_root() / "run"


def cache_root() -> Path:
    """Where things live that can be made again: converted models, downloads of our own."""
    value = os.environ.get("LLMLAUNCH_CACHE", "")
    if value:
        return _expanded(value)
    home = _home()
    return home / "cache" if home else _xdg("XDG_CACHE_HOME", ".cache") / "llmlaunch"


@dataclass(frozen=True, slots=True)
class DeploymentPaths:
    """The files of one deployment. ``name`` has been checked before (``common.deployment_name``)."""

    name: str

    @property
    def run(self) -> Path:
        """Folder of what lasts as long as the deployment runs."""
        return run_root() / self.name

    @property
    def socket(self) -> Path:
        """The supervisor's unix socket."""
        return self.run / "control.sock"

    @property
    def hang_note(self) -> Path:
        """Exists while the supervisor hangs and knows it; see ``control/unresponsive.py``."""
        return self.run / "hangs"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor for as long as it lives."""
        return self.state / "lock"

    @property
    def state(self) -> Path:
        """Folder of what outlives a run."""
        return state_root() / self.name

    @property
    def state_file(self) -> Path:
        """What the supervisor runs, by pid and start time."""
        return self.state / "state.json"

    @property
    def routes_file(self) -> Path:
        """The last route table of the gateway."""
        return self.state / "routes.json"

    @property
    def logs(self) -> Path:
        """Folder of all logs of the deployment."""
        return self.state / "logs"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor itself printed."""
        return self.logs / "supervisor.log"

    def log(self, component: str, incarnation: int) -> Path:
        """What ``component`` printed in its ``incarnation``-th life (counted from 1 for each deployment start)."""
        return self.logs / f"{component}.{incarnation:06d}.log"


def known_deployments() -> list[str]:
    """Names that have a run folder or noted what they run, alive or not, sorted. Run folders may vanish under what runs."""
    names = set()
    for root in (run_root(), state_root()):
        try:
            names |= {
                p.name for p in root.iterdir() if p.is_dir() and (root != state_root() or _noted(p.name))
            }
        except OSError:  # there is none yet, or this user may not look into it
            continue
    return sorted(names)


def _noted(name: str) -> bool:
    return DeploymentPaths(name).state_file.is_file()


def private_dir(path: Path) -> Path:
    """Create ``path`` for this user alone (mode 0700), with its parents, and return it.

    Raises UsageError when it, or what it lies in of llmlaunch's own, belongs to somebody else, and OSError.
    """
    refuse_foreign(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)  # whatever the umask says
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def refuse_foreign(path: Path) -> None:
    """Raise UsageError when ``path``, or what it lies in of llmlaunch's own, belongs to another user than this one or root.

    Whoever owns such a folder chooses what is read there, where logs are written, and which processes are ended. Links are
    followed: a state folder may lie on another disk, but both it and the link must be this user's.
    """
    ours = {folder for folder in (_home(), state_root(), run_root(), cache_root()) if folder}
    for folder in (path, *path.parents):
        if folder != path and not any(folder == root or folder.is_relative_to(root) for root in ours):
            return
        for follow in (True, False):
            try:
                owner = folder.stat(follow_symlinks=follow).st_uid
            except OSError:
                continue
            if not trusted(owner):
                raise UsageError(
                    f"{folder} belongs to {describe_user(owner)}, not to {describe_user(os.geteuid())}",
                    hint="run llmlaunch as that user, or set LLMLAUNCH_HOME to a folder of your own",
                )


def describe_user(uid: int) -> str:
    """``user 'bob' (uid 1001)``; the number alone where nobody knows it."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name!r} (uid {uid})"
    except KeyError:
        return f"unnamed user (uid {uid})"
