"""State as somebody else left it: whatever lies where a file of ours should be, every verb ends, with one clear line at most."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmlaunch import paths
from llmlaunch.cli import app
from llmlaunch.common import files, process_identity, variables
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control import state_file, supervisor_process
from llmlaunch.control.planning_lock import planning_lock
from llmlaunch.errors import UsageError
from llmlaunch.supervision import control_socket
from llmlaunch.supervision.gpu import measured_vram
from llmlaunch.supervision.logs import component_logs
from llmlaunch.supervision.processes import crash_recovery

WHERE = paths.DeploymentPaths("lab")
DEEP = "[" * 200_000
NONSENSE = [
    "", "null", "[]", "3", '"x"', "{", "\0" * 100, "NaN", '{"run": 1}', '{"run": "", "supervisor": {}, "processes": []}',
    '{"run": "", "supervisor": {"pid": -1, "started": 0}, "processes": []}',
    '{"run": "", "supervisor": {"pid": true, "started": 0}, "processes": []}',
    '{"run": "", "supervisor": {"pid": 1e400, "started": 0}, "processes": []}',
    '{"run": "", "supervisor": {"pid": 5, "started": 1}, "processes": 5}',
    '{"run": "", "supervisor": {"pid": 5, "started": 1}, "processes": [5]}',
    '{"run": "", "supervisor": {"pid": 5, "started": 1}, "processes": [{"component": "w", "incarnation": 1e999, "shim": {}}]}',
    DEEP, '{"a":' * 200_000, "9" * 5000,
]  # fmt: skip


def device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: it never ends


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: (path / "inner").mkdir(parents=True),
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to(path.with_name("target")),
    "link to itself": lambda path: path.symlink_to(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "device": device,
    "huge": huge,
    "deep": lambda path: path.write_text(DEEP),
    "no text": lambda path: path.write_bytes(os.urandom(4096)),
}
FILES = [
    "state.json",
    "learned.json",
    "lock",
    "learned.lock",
    "planning.lock",
    "supervisor.log",
    "w-1.log",
    "control.sock",
]


def place(name: str) -> Path:
    """Where the file lies; its folder is made."""
    known = {
        "state.json": WHERE.state_file, "lock": WHERE.lock, "learned.json": measured_vram.measurements_file(),
        "learned.lock": measured_vram.measurements_file().with_suffix(".lock"), "planning.lock": paths.state_root() / "planning.lock",
        "supervisor.log": WHERE.supervisor_log, "control.sock": WHERE.socket, "w-1.log": WHERE.log("w-1", 1),
    }  # fmt: skip
    paths.private_dir(WHERE.run)
    paths.private_dir(WHERE.logs)
    return known[name]


@pytest.fixture(params=CORRUPTIONS)
def corrupt(request: pytest.FixtureRequest, home: Path) -> Iterator[Callable[[Path], None]]:
    def make(path: Path) -> None:
        path.with_name("target").write_text("of somebody else")
        try:
            CORRUPTIONS[request.param](path)
        except PermissionError:
            pytest.skip("only root may make devices")

    yield make
    for target in home.rglob("target"):
        assert target.read_text() == "of somebody else", "it was written through a link"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "words", ["status", "logs", "logs w-1", "logs supervisor -n 3", "down", "gpus", "plan x.yaml"]
)
def test_every_verb_ends_with_one_line(
    corrupt: Callable[[Path], None], name: str, words: str, request: pytest.FixtureRequest
) -> None:
    if name.endswith(".log") and "huge" in str(request.node.name):
        pytest.skip("a log of any size is shown from its beginning to its end")
    corrupt(place(name))
    command = [*words.split(), *(["--name", "lab"] if words.split()[0] in ("status", "logs", "down") else [])]
    ended = CliRunner().invoke(app.build([command[0], "schema"]), command)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    assert ended.exit_code in (0, 1, 2, 3)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("hint:")]
    assert len(said) <= 1
    assert "Traceback" not in ended.output
    assert len(ended.stdout) < 1_000_000


def test_the_state_is_set_aside_and_the_next_one_takes_its_place(corrupt: Callable[[Path], None]) -> None:
    path = place("state.json")
    corrupt(path)
    assert state_file.read_state(WHERE) is None
    state = state_file.SupervisorState("run", ProcessId(10, 20))
    state_file.write_state(WHERE, state)
    assert state_file.read_state(WHERE) == state
    assert os.path.lexists(f"{path}.bad")


def test_what_was_learned_is_set_aside_and_learned_anew(corrupt: Callable[[Path], None]) -> None:
    path = place("learned.json")
    corrupt(path)
    assert measured_vram.load_measurements() == {}
    measured_vram.record_measurement("key", 5)
    assert measured_vram.load_measurements() == {"key": 5}
    assert os.path.lexists(f"{path}.bad")


@pytest.mark.parametrize("name", ["lock", "planning.lock", "learned.lock", "supervisor.log"])
def test_what_is_kept_open_is_one_of_ours(corrupt: Callable[[Path], None], name: str) -> None:
    path = place(name)
    corrupt(path)
    os.close(files.open_kept(path, os.O_RDWR))
    found = path.lstat()
    assert files.kind(found.st_mode) == "a file"
    assert found.st_mode & 0o777 == 0o600
    with planning_lock(lambda: None):
        pass
    measured_vram.record_measurement("key", 5)
    control_socket.take_lock(WHERE).release()


def test_a_socket_is_bound_whatever_lies_in_its_place(corrupt: Callable[[Path], None]) -> None:
    corrupt(place("control.sock"))
    control_socket.bind_socket(WHERE).close()
    assert files.kind(WHERE.socket.lstat().st_mode) == "a socket"
    files.remove(WHERE.socket)
    files.remove(WHERE.socket)


def test_a_log_in_whose_place_something_lies_is_begun_all_the_same(corrupt: Callable[[Path], None]) -> None:
    from llmlaunch.supervision.processes.log_writer import LogWriter

    corrupt(place("w-1.log"))
    component_logs.last_rows(WHERE.log("w-1", 1))
    with component_logs.target(WHERE, "w-1", 1, 1 << 20, 2) as target:
        LogWriter(target.folder, target.name, target.most, target.keep).write(b"\nfirst line\n")
    assert component_logs.last_rows(WHERE.log("w-1", 1))[-1:] == ["first line"]


@pytest.mark.parametrize("text", NONSENSE, ids=lambda text: text[:30])
def test_json_that_means_nothing(home: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("state.json", "learned.json"):
        place(name).write_text(text)
    assert state_file.read_state(WHERE) is None
    assert not {
        key: value for key, value in measured_vram.load_measurements().items() if type(value) is not int
    }
    assert all(len(record.message) < 500 for record in caplog.records)


def test_many_broken_files_do_not_pile_up_for_ever(home: Path) -> None:
    path = place("state.json")
    for _ in range(30):
        path.write_text("broken")
        state_file.read_state(WHERE)
    assert len(list(path.parent.glob("state.json.bad*"))) <= 9


# ── whose it is ─────────────────────────────────────────────────────────────────────────────────────────────────────


def make_all() -> None:
    for folder in (WHERE.logs, WHERE.run):
        paths.private_dir(folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@needs_root
@pytest.mark.parametrize("whose", ["home", "state", "state/lab", "state/lab/logs", "run", "run/lab"])
@pytest.mark.parametrize("words", ["status", "logs", "down"])
def test_a_home_of_another_user_is_refused(home: Path, whose: str, words: str) -> None:
    place("state.json").write_text("{}")
    os.chown(home / whose if whose != "home" else home, 1234, 1234)
    ended = CliRunner().invoke(app.build([words, "schema"]), [words, "--name", "lab"])
    told = "(uid 1234)" in ended.stderr
    assert ended.exit_code in ((1, 2, 3) if told else (0, 3))
    # What a verb does not look at does not matter to it.
    looks = {"status": "run", "logs": "state", "down": "run state"}[words].split()
    assert told or whose == "state/lab/logs" or whose.split("/")[0] not in (*looks, "home"), ended.output
    with pytest.raises(UsageError, match="uid 1234"):
        make_all()


@needs_root
def test_a_link_into_the_folder_of_another_user_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 1234, 1234)
    (home / "state").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="uid 1234"):
        paths.private_dir(WHERE.logs)
    assert not list((tmp_path / "theirs").iterdir())


@needs_root
@pytest.mark.parametrize("name", ["state.json", "learned.json"])
def test_a_file_of_another_user_is_not_believed(home: Path, name: str) -> None:
    path = place(name)
    path.write_text('{"run": "", "supervisor": {"pid": 5, "started": 1}, "processes": []}')
    os.chown(path, 1234, 1234)
    assert state_file.read_state(WHERE) is None
    assert measured_vram.load_measurements() == {}
    assert not path.exists()


def test_a_home_on_another_disk_is_a_link_and_works(home: Path, tmp_path: Path) -> None:
    (home / "state").symlink_to(tmp_path)
    state_file.write_state(WHERE, state_file.SupervisorState("run", ProcessId(10, 20)))
    assert state_file.read_state(WHERE) is not None
    assert (tmp_path / "lab" / "state.json").exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_whatever_the_umask_folders_and_files_are_private(home: Path, umask: int) -> None:
    home.rmdir()
    before = os.umask(umask)
    try:
        state_file.write_state(WHERE, state_file.SupervisorState("run", ProcessId(10, 20)))
        measured_vram.record_measurement("key", 5)
        control_socket.take_lock(WHERE).release()
        paths.private_dir(WHERE.run)
        control_socket.bind_socket(WHERE).close()
        os.close(files.open_kept(paths.private_dir(WHERE.logs) / "supervisor.log", os.O_WRONLY))
    finally:
        os.umask(before)
    for path in (home, *home.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_process_that_is_not_ours_is_left_alone_whatever_the_state_says(home: Path) -> None:
    """As after a restore of the state folder from a backup: pid and start time fit, by chance or by malice."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        found = process_identity.identify(stranger.pid)
        assert found is not None
        kept = state_file.SupervisedProcess("w-1", 1, found, found, (found,))
        state_file.write_state(
            WHERE, state_file.SupervisorState("run", ProcessId(10, 20), (kept,), process_identity.boot_id())
        )
        state_file.write_state(
            WHERE, state_file.SupervisorState("run", found, (kept,), process_identity.boot_id())
        )
        assert supervisor_process.supervisor_of(WHERE.name) is None
        assert crash_recovery.clean_after_crash(WHERE).ended == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_of_ours_is_ended_also_when_it_wiped_its_environment(home: Path) -> None:
    for env in ({variables.RUN: "run"}, {}):
        ours = subprocess.Popen(["sleep", "60"], env=env)
        found = process_identity.identify(ours.pid)
        assert found is not None
        kept = state_file.SupervisedProcess("w-1", 1, found, None)
        state_file.write_state(
            WHERE, state_file.SupervisorState("run", ProcessId(10, 20), (kept,), process_identity.boot_id())
        )
        crash_recovery.clean_after_crash(WHERE)
        assert ours.wait(10) == -9
