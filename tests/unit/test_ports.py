"""Ports that tests are given: never the same one twice while both users live."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.ports import PORTS, free_port

ROOT = Path(__file__).parents[2]
_MANY = """
import sys
from pathlib import Path
from tests.support.ports import free_port
print(*(free_port(notes=Path(sys.argv[1])) for _ in range(50)), flush=True)
sys.stdin.read()
"""


def test_processes_at_once_get_different_ports(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MANY, str(tmp_path / "notes")],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    outputs = [process.stdout.readline() for process in processes if process.stdout]
    for process in processes:
        process.communicate(timeout=30)
    ports = [int(word) for line in outputs for word in line.split()]
    assert len(ports) == 150
    assert len(set(ports)) == 150
    assert all(port in PORTS for port in ports)


def test_threads_at_once_get_different_ports(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ports = list(pool.map(lambda _: free_port(notes=tmp_path / "notes"), range(100)))
    assert len(set(ports)) == 100


def test_ports_in_a_row_are_all_kept(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    first = free_port(notes=notes, together=3)
    assert free_port(notes=notes) not in range(first, first + 3)
    assert len(notes.read_text().splitlines()) == 4


def test_what_an_ended_process_had_comes_free_and_is_not_given_again_at_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(notes)], cwd=ROOT, input="", capture_output=True, text=True, check=True
    )  # fmt: skip
    before = [int(word) for word in done.stdout.split()]
    port = free_port(notes=notes)
    assert port not in before
    assert len(notes.read_text().splitlines()) == 1


def test_notes_that_were_cut_off_are_no_obstacle(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text(f"{PORTS.stop - 1} 1")
    assert free_port(notes=notes) in PORTS
    notes.write_text("22")
    assert free_port(notes=notes) in PORTS
