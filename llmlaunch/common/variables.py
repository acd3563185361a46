"""Environment variables that the supervisor sets for its processes. Pure, and read by the shim too.

What a user sets, such as LLMLAUNCH_HOME, is where it is read.
"""

from __future__ import annotations

TOKEN = "LLMLAUNCH_TOKEN"  # noqa: S105  # the name of a variable, not a secret
"""What a worker or a gateway shows to the controller; the controller's own is what all others derive from."""
WORKER_KEY = "LLMLAUNCH_WORKER_KEY"
"""Of a built-in worker: the key that its callers must show."""
WORKER_KEYS = "LLMLAUNCH_WORKER_KEYS"
"""Of a gateway: what the keys of all workers are derived from."""
API_KEY = "LLMLAUNCH_API_KEY"
"""Of the command line: the key that it shows to the endpoint."""
DEPLOYMENT = "LLMLAUNCH_DEPLOYMENT"
"""Of all that a supervisor starts, like the next three: the deployment's name."""
COMPONENT = "LLMLAUNCH_COMPONENT"
INCARNATION = "LLMLAUNCH_INCARNATION"
"""Which life of its component a process is, counted from 1."""
RUN = "LLMLAUNCH_RUN"
"""The life of the supervisor: a random name."""
STATE_FILE = "LLMLAUNCH_STATE_FILE"
"""Of a shim alone, like the next one: the state file of its supervisor."""
CGROUP = "LLMLAUNCH_CGROUP"
"""The control group that its program goes to."""
