"""The route table: which replicas serve which names. Pure: a new table is made from the old one and the controller's answer.

The controller's answer is read by hand and not with the pydantic models of ``controller.wire``: those alone would double
the memory and the start time of this process. A test keeps the two descriptions equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llmlaunch.common.dispatch_methods import DEFAULT, DispatchMethod, dispatch_method
from llmlaunch.gateway.multiprocess.shares import share

FASTCHAT = "fastchat"
"""The ``engine`` of workers that speak FastChat's protocol; all others speak OpenAI's."""


@dataclass(frozen=True, slots=True)
class RoutedReplica:
    """One replica, and how requests reach it."""

    key: str
    """Its worker_name: ``http://host:port``."""
    host: str
    port: int
    names: tuple[str, ...]
    """Its served names."""
    prefix: bytes = b""
    """The path of its address, which goes in front of each request's path."""
    speed: float = 1.0
    """Its capacity in relation to other replicas."""
    queue_length: int = 0
    """Requests that it has as it reports them itself, from all senders."""
    draining: bool = False
    """Whether it takes no new requests."""
    engine_model: str | None = None
    """The only name that the engine accepts; None: it accepts all of ``names``."""
    max_concurrency: int | None = None
    """Requests at once: this process's share of them. None: unknown."""
    engine: str = ""
    kind: str = ""
    """What it is for: ``generate``, ``embed`` or ``rerank``; empty: it does not say."""
    """The name of its engine; empty if unknown."""
    request_timeout_s: float | None = None
    """Seconds without a byte, while it has requests, after which it is taken for broken; None: see ``health.silence``."""
    max_model_len: int | None = None
    """Its context length in tokens; None: it does not say."""
    keyed: bool = False
    """Whether requests to it carry the API key that is derived from its address."""


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The table at one moment. Before the controller's first answer, ``rev`` is -1 and ``epoch`` empty."""

    epoch: str = ""
    rev: int = -1
    settled: bool = False
    dispatch: DispatchMethod = DEFAULT
    replicas: Mapping[str, RoutedReplica] = field(default_factory=dict)
    """By key."""
    expected: frozenset[str] = frozenset()
    """All names of the deployment, whether or not they are served now."""
    remembered: frozenset[str] = frozenset()
    """Keys of replicas kept from the epoch before, which the controller has not seen again yet."""
    serving: Mapping[str, tuple[RoutedReplica, ...]] = field(default_factory=dict)
    """Served name → the replicas that take new requests for it."""

    @property
    def names(self) -> list[str]:
        """The names that are served now, sorted."""
        return sorted(self.serving)

    def max_model_len(self, name: str) -> int | None:
        """The context length in tokens that every replica of ``name`` has; None if none of them says."""
        told = (replica.max_model_len for replica in self.serving.get(name, ()))
        return min((length for length in told if length is not None), default=None)

    def ready_of_expected(self) -> int:
        """How many of the ``expected`` names are served now."""
        return sum(name in self.serving for name in self.expected)


def merge(old: RouteTable, new: RouteTable) -> RouteTable:
    """The table to use when ``new`` arrives while ``old`` is in use.

    A controller that has just started says ``settled=False`` while workers may not have found it yet. Until it is settled,
    replicas that it has not seen are kept as they were. Replicas that it has seen and lost are removed.
    """
    if new.settled:
        return _indexed(new, new.replicas, new.expected, frozenset())
    known = old.remembered if new.epoch == old.epoch else frozenset(old.replicas)
    remembered = known - new.replicas.keys()
    replicas = {key: old.replicas[key] for key in old.replicas if key in remembered}
    replicas.update(new.replicas)
    keep_promises = new.epoch != old.epoch or bool(old.remembered)
    expected = new.expected | old.expected if keep_promises else new.expected
    return _indexed(new, replicas, expected, remembered)


def _indexed(
    new: RouteTable,
    replicas: Mapping[str, RoutedReplica],
    expected: frozenset[str],
    remembered: frozenset[str],
) -> RouteTable:
    serving: dict[str, list[RoutedReplica]] = {}
    for replica in replicas.values():
        if not replica.draining:
            for name in replica.names:
                serving.setdefault(name, []).append(replica)
    return RouteTable(
        epoch=new.epoch,
        rev=new.rev,
        settled=new.settled,
        dispatch=new.dispatch,
        replicas=replicas,
        expected=expected,
        remembered=remembered,
        serving={name: tuple(found) for name, found in serving.items()},
    )


def parse(answer: object, processes: int = 1) -> tuple[RouteTable, list[str]]:
    """Read the controller's answer to ``GET /routes`` (``controller.wire.RoutesResponse``).

    The max_concurrency of a replica is shared by ``processes``.
    Returns the table to :func:`merge`, and a message for each replica that had to be left out. Raises ValueError if the
    answer as a whole is not valid: the caller then keeps its table.
    """
    if not isinstance(answer, dict):
        raise ValueError(f"expected an object, got {type(answer).__name__}")
    dispatch = dispatch_method(_field(answer, "dispatch", str))
    replicas: dict[str, RoutedReplica] = {}
    problems: list[str] = []
    for row in _field(answer, "replicas", list):
        try:
            replica = _replica(row, processes)
        except ValueError as error:
            name = row.get("worker_name") if isinstance(row, dict) else row
            problems.append(f"replica {name!r} is left out: {error}")
        else:
            replicas[replica.key] = replica
    table = RouteTable(
        epoch=_field(answer, "epoch", str),
        rev=_field(answer, "rev", int),
        settled=_field(answer, "settled", bool),
        dispatch=dispatch,
        replicas=replicas,
        expected=frozenset(_strings(_field(answer, "expected", list), "expected")),
    )
    return table, problems


def _replica(row: object, processes: int) -> RoutedReplica:
    if not isinstance(row, dict):
        raise ValueError("not an object")
    key = _field(row, "worker_name", str)
    host, port, prefix = address(key)
    speed = _field(row, "speed", (int, float), 1.0)
    cap = _field(row, "max_concurrency", (int, type(None)), None)
    if not speed > 0:
        raise ValueError(f"speed {speed} is not above 0")
    timeout = _field(row, "request_timeout_s", (int, float, type(None)), None)
    if timeout is not None and not timeout > 0:
        raise ValueError(f"request_timeout_s {timeout} is not above 0")
    if cap is not None and cap < 1:
        raise ValueError(f"max_concurrency {cap} is below 1")
    return RoutedReplica(
        key=key,
        host=host,
        port=port,
        prefix=prefix,
        names=tuple(dict.fromkeys(_strings(_field(row, "model_names", list), "model_names"))),
        speed=float(speed),
        queue_length=max(0, _field(row, "queue_length", int, 0)),
        draining=_field(row, "draining", bool, False),
        engine_model=_field(row, "engine_model", (str, type(None)), None),
        max_concurrency=None if cap is None else share(cap, processes),
        engine=_field(row, "engine", str, ""),
        kind=_field(row, "kind", (str, type(None)), None) or "",
        request_timeout_s=None if timeout is None else float(timeout),
        max_model_len=_field(row, "max_model_len", (int, type(None)), None),
        keyed=_field(row, "keyed", bool, False),
    )


def address(url: str) -> tuple[str, int, bytes]:
    """Host, port and path prefix of ``http://host[:port][/prefix]``. Raises ValueError for anything else."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"address {url!r} contains characters that are not valid in a URL")
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError(f"address {url!r} is not http://")
    if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"address {url!r} is not of the form http://host:port")
    return parts.hostname, parts.port or 80, parts.path.rstrip("/").encode()


def dump(table: RouteTable, processes: int = 1) -> dict[str, object]:
    """``table`` as an answer that :func:`parse` reads, without values that change from moment to moment."""
    return {
        "epoch": table.epoch,
        "rev": table.rev,
        "settled": table.settled,
        "dispatch": table.dispatch,
        "expected": sorted(table.expected),
        "replicas": [
            {
                "worker_name": replica.key,
                "model_names": list(replica.names),
                "speed": replica.speed,
                "draining": replica.draining,
                "engine_model": replica.engine_model,
                "max_concurrency": replica.max_concurrency and replica.max_concurrency * processes,
                "engine": replica.engine,
                "kind": replica.kind or None,
                "request_timeout_s": replica.request_timeout_s,
                "max_model_len": replica.max_model_len,
                "keyed": replica.keyed,
            }
            for replica in table.replicas.values()
        ],
    }


_MISSING: Any = object()


def _field(row: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _MISSING) -> Any:
    value = row.get(name, default)
    if value is _MISSING:
        raise ValueError(f"{name} is missing")
    # bool is an int to isinstance, and neither a revision nor a speed.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {value!r}")
    return value


def _strings(values: Iterable[object], name: str) -> list[str]:
    found = [value for value in values if isinstance(value, str) and value]
    if len(found) != len(list(values)):
        raise ValueError(f"{name} must be a list of non-empty names")
    return found
