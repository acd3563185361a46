"""The supervisor's own log is bounded, whoever prints into it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llmlaunch import paths

PROGRAM = """
import logging, os, sys
from llmlaunch import paths
from llmlaunch.supervision.logs import supervisor_log
from llmlaunch.supervision.processes import log_writer
log_writer.LOOK_EVERY_S = 0.0
supervisor_log.MOST_BYTES = 1000
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
supervisor_log.keep(paths.DeploymentPaths("lab"))
for number in range(200):
    logging.info("line %d", number)
    os.write(2, b"of a library %d\\n" % number)
"""


def test_it_begins_another_file_and_libraries_print_into_that_one_too(home: Path) -> None:
    log = paths.DeploymentPaths("lab").supervisor_log
    paths.private_dir(log.parent)
    with log.open("wb") as stderr:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=stderr, stdout=stderr, check=True)
    files = list(log.parent.iterdir())
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) < 2 * 1100
    assert log.read_text().endswith("INFO line 199\nof a library 199\n")


def test_a_terminal_stays_where_it_is(home: Path) -> None:
    paths.private_dir(paths.DeploymentPaths("lab").logs)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "INFO line 199" in done.stderr
    assert not list(paths.DeploymentPaths("lab").logs.iterdir())
