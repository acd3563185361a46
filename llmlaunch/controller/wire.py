"""The controller's protocol. Endpoint and field names are FastChat's, so that its clients work unchanged;
``docs/explanation/architecture.md`` lists what differs and why.

=====================  =======================================  ==================================================
POST (unless noted)    request                                  answer
=====================  =======================================  ==================================================
/register_worker       :class:`RegisterWorker`                  null; {"registered": false, "why"} for a FastChat worker that
                                                                does not listen yet; 401/403/422 with an error envelope if refused
/receive_heart_beat    :class:`HeartBeat`                       {"exist": bool}; false: register again
/unregister_worker     :class:`WorkerName`                      {"exist": bool}
/drain_worker          :class:`WorkerName`                      {"exist": bool, "in_flight": int}
/set_expected          :class:`Expected`                        null
/gateway_report        :class:`GatewayReport`                   null
GET /routes            ?since=REV&epoch=E&wait=SECONDS          :class:`RoutesResponse`; held until newer than REV, or wait is over
/list_models           –                                        {"models": […]}; also /list_language_models, /list_multimodal_models
/get_worker_address    {"model": name}                          {"address": url}, "" when nobody serves it
/refresh_all_workers   –                                        null; asks every worker for its status again
/worker_get_status     –                                        :class:`WorkerStatus` of all together
GET /test_connection   –                                        "success"
GET /health            –                                        {"status": "ok", …}
=====================  =======================================  ==================================================

Everything that changes the table, and /routes, needs ``Authorization: Bearer <token>`` when the controller has a token
(``tokens.py``). Under open registration workers need none, for their own IP address and for names that the manifest
does not promise; /set_expected and /gateway_report need it all the same. Unless registration is open, all but /health and
/test_connection need a token then.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from llmlaunch.common.dispatch_methods import DispatchMethod

FASTCHAT = "fastchat"
"""The ``engine`` of FastChat's own workers: gateways translate for them."""


class WorkerStatus(BaseModel):
    """What a worker reports of itself."""

    model_names: list[str] = Field(min_length=1)
    speed: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    queue_length: int = Field(default=0, ge=0)


class RegisterWorker(BaseModel):
    """What a worker, or the supervisor for it, sends to be listed."""

    worker_name: str
    """Its address, ``http://host:port``."""
    check_heart_beat: bool = True
    worker_status: WorkerStatus | None = None
    """None: the controller asks the worker's /worker_get_status."""
    multimodal: bool = False
    component: str = ""
    """The component's name in its deployment, for display."""
    engine: str = ""
    engine_model: str | None = None
    """The name that the engine itself knows; None: it accepts every name in model_names."""
    kind: Literal["generate", "embed", "rerank", "audio"] | None = None
    max_concurrency: int | None = Field(default=None, ge=1)
    request_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that it may send nothing while it has requests; None: gateways decide."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Its context length in tokens; None: it does not say."""
    keyed: bool = False
    """It requires the key of its address of its callers (``tokens.worker_key``). Ignored without a token."""
    verified: bool = False
    """True: the supervisor vouches for the address (engines that have no /worker_get_status)."""
    probe_path: str = ""
    """Of a verified worker: a path where GET is answered with 2xx while it is healthy. Empty: accepting connections is enough."""
    probe_timeout_s: float = Field(default=2.0, gt=0, le=120)
    """Seconds that such an answer may take."""
    pid: int | None = Field(default=None, ge=1)
    """Of a verified worker on this machine: its process, so that another one at its address is not mistaken for it."""
    pid_started: int = 0
    """When that process started, in clock ticks since boot (``man 5 proc_pid_stat``)."""


class HeartBeat(BaseModel):
    """Renews a worker's lease."""

    worker_name: str
    queue_length: int = Field(default=0, ge=0)


class WorkerName(BaseModel):
    """Names a worker by its address."""

    worker_name: str


class Expected(BaseModel):
    """The served names that the manifest promises."""

    names: list[str]
    """Gateways answer 404 for a name that is not in it, and 503 for one that is but has no worker yet."""


class GatewayReport(BaseModel):
    """A gateway's load. Sent when it changes, and at least twice per ``heartbeat.REPORT_LEASE_S`` while anything is in flight."""

    gateway: str
    """An id of the gateway's process."""
    in_flight: dict[str, Annotated[int, Field(ge=0)]]
    """Requests in flight by worker_name."""


class ReplicaRoute(BaseModel):
    """One row of the route table."""

    worker_name: str
    model_names: list[str]
    speed: float = 1.0
    queue_length: int = 0
    draining: bool = False
    component: str = ""
    engine: str = ""
    engine_model: str | None = None
    kind: Literal["generate", "embed", "rerank", "audio"] | None = None
    max_concurrency: int | None = None
    request_timeout_s: float | None = None
    max_model_len: int | None = None
    keyed: bool = False
    """Requests to it must carry its key."""


class RoutesResponse(BaseModel):
    """The route table."""

    epoch: str
    """An id of the controller's process; revisions of different epochs are not comparable."""
    rev: int
    settled: bool
    """False just after the controller started, while workers may not have registered yet: gateways keep what they knew."""
    dispatch: DispatchMethod
    replicas: list[ReplicaRoute]
    expected: list[str]
