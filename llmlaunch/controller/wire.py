"""The controller's protocol. Endpoint and field names follow FastChat's, so that its clients find what they know;
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
(``tokens.py``). Under open registration workers do without, for their own IP address and for names that the deployment
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
    model_names: list[str] = Field(min_length=1)
    speed: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    queue_length: int = Field(default=0, ge=0)


class RegisterWorker(BaseModel):
    worker_name: str
    """Its address, ``http://host:port``."""
    check_heart_beat: bool = True
    worker_status: WorkerStatus | None = None
    """None: the controller asks the worker's /worker_get_status."""
    multimodal: bool = False
    component: str = ""
    """The component's name in its deployment, for people."""
    engine: str = ""
    engine_model: str | None = None
    """The name the engine itself knows; None: it answers to every name in model_names."""
    kind: Literal["generate", "embed", "rerank"] | None = None
    max_concurrency: int | None = Field(default=None, ge=1)
    request_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds for which it may say nothing while it has requests; None: gateways decide."""
    keyed: bool = False
    """Its callers show the key that is derived for its address (``tokens.worker_key``). Believed of who shows a token."""
    verified: bool = False
    """True: the supervisor vouches for the address (engines that have no /worker_get_status)."""
    probe_path: str = ""
    """Of a verified worker: where GET is answered with 2xx while it is well. Empty: it is well while it takes connections."""
    probe_timeout_s: float = Field(default=2.0, gt=0, le=120)
    """Seconds that such an answer may take."""
    pid: int | None = Field(default=None, ge=1)
    """Of a verified worker on this machine: its process; somebody else at its address is not taken for it."""
    pid_started: int = 0
    """When that process started, in clock ticks since boot (``man 5 proc_pid_stat``)."""


class HeartBeat(BaseModel):
    worker_name: str
    queue_length: int = Field(default=0, ge=0)


class WorkerName(BaseModel):
    worker_name: str


class Expected(BaseModel):
    names: list[str]
    """Every served name the manifest promises: unknown ones are 404, known but not ready ones 503."""


class GatewayReport(BaseModel):
    """Sent when it changes, and while anything is in flight at least twice per ``heartbeat.REPORT_LEASE_S`` even if it does not."""

    gateway: str
    """An id that is the gateway's own for its life."""
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
    kind: Literal["generate", "embed", "rerank"] | None = None
    max_concurrency: int | None = None
    request_timeout_s: float | None = None
    keyed: bool = False
    """Requests to it bear its key."""


class RoutesResponse(BaseModel):
    epoch: str
    """Of the controller's life; revisions of different epochs do not compare."""
    rev: int
    settled: bool
    """False just after the controller started, while workers may not have found it yet: keep what you knew."""
    dispatch: DispatchMethod
    replicas: list[ReplicaRoute]
    expected: list[str]
