"""The worker's description of itself for programs (OpenAPI 3.1), written by FastAPI from the routes that Starlette serves.

Imported when somebody asks for it: a start pays nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """OpenAI's error envelope."""

    error: Error


@dataclass(frozen=True, slots=True)
class Address:
    """One route. ``path`` as Starlette writes it; ``body`` None: it takes none."""

    method: str
    path: str
    handler: Any
    body: type[BaseModel] | None = None


def describe(addresses: Sequence[Address], version: str) -> dict[str, Any]:
    """The OpenAPI document of ``addresses``."""
    app = FastAPI(title="llmlaunch worker", version=version)
    for address in addresses:
        app.add_api_route(
            address.path,
            _signed(address),
            methods=[address.method],
            name=address.handler.__name__,
            description=inspect.getdoc(address.handler) or "",
            operation_id=_operation(address),
            response_model=None,
            responses={"4XX": {"model": Refusal}, "5XX": {"model": Refusal}},
        )
    return app.openapi()


def _signed(address: Address) -> Any:
    """A function with the parameters that the route has; it is never called."""

    def endpoint() -> None: ...

    kind = inspect.Parameter.KEYWORD_ONLY
    names = re.findall(r"{(\w+)", address.path)
    parameters = [inspect.Parameter(name, kind, annotation=str) for name in names]
    if address.body is not None:
        parameters.append(inspect.Parameter("body", kind, annotation=address.body))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return endpoint


def _operation(address: Address) -> str:
    words = re.sub(r"{(\w+)[^}]*}", r"\1", address.path).strip("/")
    return address.method.lower() + "_" + re.sub(r"\W+", "_", words)
