"""One supervisor for each deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.supervision import control_socket


def test_a_lock_has_one_holder(home: Path) -> None:
    where = paths.DeploymentPaths("lab")
    first = control_socket.take_lock(where)
    with pytest.raises(control_socket.AlreadyRunningError):
        control_socket.take_lock(where)
    first.release()
    control_socket.take_lock(where).release()
