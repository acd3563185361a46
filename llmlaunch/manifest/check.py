"""What no single value shows: keys that exclude each other, ports and names that clash."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from llmlaunch.common.addresses import overlap
from llmlaunch.manifest.schema import ApiPart, ControllerPart, ModelPart
from llmlaunch.manifest.types import DEFAULT_API_PORT, DEFAULT_CONTROLLER_PORT, EngineName
from llmlaunch.manifest.yaml_document import Path, YamlDocument

Home = Callable[[str], Path]
"""Key → where its value stands: in the model, or under defaults."""
LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class ModelClaims:
    """What a model claims for itself, as far as it could be read."""

    path: Path
    names: tuple[tuple[Path, str], ...]
    """Each with the place of what it comes from."""
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class _Claim:
    host: str
    port: int
    who: str
    path: Path
    given: bool = True
    """False: a default, which the manifest does not mention."""


def model(tree: YamlDocument, part: ModelPart, wrong: Collection[str], path: Path, home: Home) -> None:
    """Keys of one model that need or exclude each other. A rule that touches one of the ``wrong`` keys has nothing to say."""
    is_command = part.engine == EngineName.COMMAND.value
    if is_command and not part.command and not {"engine", "command"} & set(wrong):
        where = home("engine")
        tree.problem(
            where if where[0] == "models" else path,
            "engine: command requires the key command",
            expected='command: [program, --port, "{port}"]',
        )
    if part.command and not is_command and "engine" not in wrong:
        message = f"command is only valid with engine: command; this model's engine is {part.engine}"
        tree.problem(home("command"), message, key=True)
    if is_command and part.engine_args:
        message = "engine_args does not apply to engine: command"
        tree.problem(home("engine_args"), message, expected="the flags as words of command", key=True)
    if part.bin is not None and part.engine == EngineName.AUTO.value and "engine" not in wrong:
        message = "bin needs engine: it does not say whose program it is"
        tree.problem(home("bin"), message, expected="engine: vllm, sglang or llamacpp", key=True)
    if part.engine_model and not is_command and "engine" not in wrong:
        message = "engine_model is only valid with engine: command; the other engines are told their names"
        tree.problem(home("engine_model"), message, key=True)
    if part.kind and not is_command and "engine" not in wrong:
        message = "kind is only valid with engine: command; for the other engines the model's files tell"
        tree.problem(home("kind"), message, key=True)
    if part.python is not None and part.bin is not None:
        message = "python and bin both say where the engine is"
        tree.problem(home("bin"), message, expected="one of the two", key=True)
    if part.port is not None and part.port + part.replicas - 1 > LAST_PORT:
        tree.problem(home("port"), f"the replicas' ports, counted up from this one, exceed {LAST_PORT}")


def names(tree: YamlDocument, entries: Iterable[ModelClaims]) -> None:
    """Every served name belongs to one entry."""
    seen: dict[str, tuple[ModelClaims, Path]] = {}
    for entry in entries:
        for where, name in entry.names:
            first = seen.setdefault(name, (entry, where))
            if first == (entry, where):
                continue
            shown = "this name" if tree.hidden(where) else f"the name {name!r}"
            if first[0] is entry:
                tree.problem(where, f"{shown} is listed twice")
            else:
                line, _ = tree.place(first[1])
                message = f"{shown} is taken by the model on line {line}"
                tree.problem(
                    where,
                    message,
                    expected="another name under names:, or replicas: for several copies of one model",
                )


def ports(
    tree: YamlDocument, controller: ControllerPart | None, api: ApiPart | None, entries: Sequence[ModelClaims]
) -> None:
    """No two components ask for one port on the same address.

    A model's port is its first replica's alone: the others take what is free after it, and cannot clash.
    """
    taken: dict[int, list[_Claim]] = {}
    asked = [_Claim(e.host, e.port, "the model", (*e.path, "port")) for e in entries if e.port is not None]
    for claim in _servers(controller, api) + asked:
        rival = next((c for c in taken.get(claim.port, ()) if overlap(c.host, claim.host)), None)
        if rival:
            _tell(tree, claim, rival)
        else:
            taken.setdefault(claim.port, []).append(claim)


def tls(tree: YamlDocument, api: ApiPart) -> None:
    """A certificate and its key come together."""
    for given, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(api, given) is not None and getattr(api, missing) is None:
            tree.problem(("api", given), f"{given} is given without {missing}", expected="both", key=True)


def _servers(controller: ControllerPart | None, api: ApiPart | None) -> list[_Claim]:
    found = []
    for part, who, default in (
        (controller, "controller", DEFAULT_CONTROLLER_PORT),
        (api, "api", DEFAULT_API_PORT),
    ):
        if part:
            given = part.port is not None
            found.append(_Claim(part.host, part.port or default, f"the {who}", (who, "port"), given))
    return found


def _tell(tree: YamlDocument, claim: _Claim, rival: _Claim) -> None:
    if not claim.given:
        claim, rival = rival, claim
    shown = "this port" if tree.hidden(claim.path) else f"port {claim.port}"
    if rival.given:
        line, _ = tree.place(rival.path)
        whose = f"{rival.who} on line {line}"
    else:
        whose = f"{rival.who}, which has it unless the manifest gives it another"
    tree.problem(claim.path, f"{shown} is taken by {whose}", expected="a port of its own")
