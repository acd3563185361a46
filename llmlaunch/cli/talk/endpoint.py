"""The OpenAI endpoint of a deployment, as ``test``, ``chat`` and ``up`` ask it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmlaunch.cli.display.render import endpoint
from llmlaunch.errors import ControlError, DeadlineError, LlmlaunchError, UsageError

if TYPE_CHECKING:
    import httpx

    from llmlaunch.control.client import ControlClient
    from llmlaunch.planning.types import ProcessSpec

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class RequestError(LlmlaunchError):
    """The endpoint refused, or nobody answered. ``status`` is 0 without an answer."""

    code = "request"

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go. ``url`` is the base that OpenAI clients take; the key is kept out of ``repr``."""

    url: str
    key: str = field(default="", repr=False)
    timeout_s: float = 600.0
    direct: bool = False
    """It is on this machine: no proxy is used, and the certificate may name the host that others use."""

    def get(self, path: str) -> Any:
        """The JSON at ``path``. Raises RequestError and DeadlineError."""
        with self._client() as client:
            return _json(client.get(self.url + path))

    def names(self) -> list[str] | None:
        """The models it lists, sorted; None when it has no such list. Raises RequestError and DeadlineError."""
        try:
            return sorted(str(item["id"]) for item in self.get("/models")["data"])
        except RequestError as error:
            if error.status in (404, 405):
                return None
            raise
        except (LookupError, TypeError):
            return None

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers ``body``. Raises RequestError and DeadlineError."""
        with self._client() as client:
            return _json(client.post(self.url + path, json=body))

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer. Leaving early closes the connection, which cancels the request.

        Raises RequestError, also for an error in the middle of the stream, and DeadlineError.
        """
        with self._client() as client, client.stream("POST", self.url + path, json=body) as response:
            if response.status_code != 200:
                response.read()
                raise _refused(response)
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise RequestError(_message(event) or "the answer broke off")
                yield event
            raise RequestError("the answer broke off before its end")

    @contextlib.contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        import httpx

        try:
            with self._make_client() as client:
                yield client
        except httpx.ConnectError:
            through = "" if self.direct else _through(self.url)
            raise RequestError(
                f"nobody answers at {self.url}{through}", hint="llmlaunch status says what runs"
            ) from None
        except httpx.ProxyError as error:
            raise RequestError(f"{self.url}{_through(self.url)}: {error}") from None
        except httpx.TimeoutException:
            raise DeadlineError(f"no answer from {self.url} within {self.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RequestError(f"{self.url}: {error}") from None
        except UnicodeEncodeError:
            raise RequestError("the request contains a byte that is not UTF-8") from None
        except json.JSONDecodeError:
            raise RequestError(f"{self.url} answered with something that is not JSON") from None

    def _make_client(self) -> httpx.Client:
        """Raises RequestError when the environment names a proxy or certificates that cannot be used."""
        import httpx

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        far = not self.direct
        try:
            return httpx.Client(timeout=self.timeout_s, headers=headers, trust_env=far, verify=far)
        except OSError as error:
            variables = ", ".join(name for name in _CERTIFICATES if os.environ.get(name))
            raise RequestError(
                f"the certificates of {variables or 'this machine'} cannot be read: {error}"
            ) from None
        except (ImportError, ValueError, httpx.InvalidURL):
            # The value may hold a password; its name says enough.
            variables = ", ".join(name for name in os.environ if name.lower() in _PROXIES)
            raise RequestError(
                f"the proxy for {self.url} cannot be used (set by {variables or 'the environment'})",
                hint="http:// and https:// proxies can; for SOCKS: pip install 'httpx[socks]'. NO_PROXY names hosts to reach directly",
            ) from None


def _through(url: str) -> str:
    """Which proxy the environment sets for ``url``, without its password."""
    from urllib.request import getproxies_environment, proxy_bypass

    parts, proxies = urlsplit(url), getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return ""
    return f" through the proxy {urlsplit(proxy).netloc.rpartition('@')[2] or 'of the environment'}"


def name_hint(model: str, names: Sequence[str]) -> str:
    """A hint for an unknown ``model``: the nearest name, and all names."""
    from llmlaunch.common.spelling import nearest

    near = nearest(model, names, cutoff=0.5)
    return (f"did you mean {near!r}? " if near else "") + f"ready: {', '.join(names) or 'none'}"


def _json(response: httpx.Response) -> Any:
    if response.status_code != 200:
        raise _refused(response)
    return response.json()


def _refused(response: httpx.Response) -> RequestError:
    try:
        message = _message(response.json())
    except ValueError:
        message = ""
    hint = ""
    if response.status_code == 401:
        hint = "set LLMLAUNCH_API_KEY to one of the deployment's keys"
    elif response.status_code == 503:
        hint = "llmlaunch status says why no replica is ready"
    return RequestError(
        f"{response.status_code}: {message or response.reason_phrase}", status=response.status_code, hint=hint
    )


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", "") if isinstance(error, dict) else error or "")


def find(
    file: str | None, name: str | None, api_base: str | None, *, timeout_s: float | None = None
) -> Endpoint:
    """The endpoint that ``--api-base`` names, or that of the selected deployment.

    The key comes from LLMLAUNCH_API_KEY, else from the deployment's own keys, else from OPENAI_API_KEY.
    """
    from llmlaunch.common.variables import API_KEY

    own = os.environ.get(API_KEY, "")
    others = os.environ.get("OPENAI_API_KEY", "")
    limit = timeout_s or 600.0
    if api_base is not None:
        url = _checked(api_base)
        return Endpoint(url, own or others, limit, _is_here(urlsplit(url).hostname or ""))
    from llmlaunch.cli.deploy.select import deployment
    from llmlaunch.control.client import ControlClient

    client = ControlClient.connect(deployment(file, name))
    url = client.status().api.url
    if not url:
        raise RequestError(f"{client.name} has no gateway", hint="llmlaunch status says what runs")
    return Endpoint(endpoint(url), own or _key_of(client) or others, limit, direct=True)


def _key_of(client: ControlClient) -> str:
    try:
        return _first_key(client.specs())
    except ControlError:  # a supervisor of another version, which serves all the same
        return ""


def _is_here(host: str) -> bool:
    from llmlaunch.hardware.ports import local_addresses

    return host.startswith("127.") or host in {name.lower() for name in local_addresses()}


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--api-base {url!r} is not a URL", hint="for instance http://127.0.0.1:8000/v1")
    return url.rstrip("/") if parts.path.strip("/") else endpoint(url)


def _first_key(specs: tuple[ProcessSpec, ...]) -> str:
    """A key that the deployment's gateway accepts, from the gateway's own source of keys."""
    for spec in specs:
        if spec.component != "api":
            continue
        variable = spec.api_keys_variable
        listed = spec.env.get(variable) or os.environ.get(variable, "")
        keys = [key.strip() for key in listed.split(",") if key.strip()]
        return keys[0] if keys else _key_in(spec.api_keys_file)
    return ""


def _key_in(file: str) -> str:
    """Its first key without limits, or the first of all; empty when there is none."""
    from llmlaunch.gateway.limits.api_key import UNLIMITED
    from llmlaunch.gateway.limits.keys import parse

    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines() if file else []
        entries = list(parse(lines, file).values())
    except (OSError, UnicodeDecodeError, UsageError):
        return ""
    free = [entry for entry in entries if entry.limits == UNLIMITED]
    return next((entry.key for entry in (*free, *entries)), "")


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=2.0)
    import ssl

    # Nothing secret is sent, and the certificate names the host that other machines use.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=2.0, context=context)


def names_ready(url: str) -> tuple[int, int] | None:
    """How many served names are ready and how many are expected, as the gateway at ``url`` says; None when it does not."""
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port)
    try:
        connection.request("GET", "/health")
        body = json.loads(connection.getresponse().read())
        return int(body["names_ready"]), int(body["names_expected"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()
