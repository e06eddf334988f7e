"""What Flo asks of a cluster's API: a few verbs, on the connection and the credentials of the official client.

Objects are passed as they are written: models of the client for each of a thousand pods would cost more than all the
rest. `k8s/rbac.yaml` grants exactly these verbs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

import aiohttp
import orjson

from schemas.errors import Unavailable
from schemas.json import JSONObject
from workers.executors.kubernetes.errors import ClusterAway, Rejected, TooOld
from workers.executors.kubernetes.facts import Object
from workers.executors.kubernetes.naming import SELECTOR

Kind: TypeAlias = Literal["jobs", "pods"]
_ROOTS: Final = {"jobs": "/apis/batch/v1", "pods": "/api/v1", "secrets": "/api/v1"}
_PATIENCE: Final = aiohttp.ClientTimeout(total=10, connect=3)
#: A watch ends by itself after this long, in seconds; it is taken for dropped when not even a bookmark comes.
_WATCH_SECONDS: Final = 290
_WATCH_PATIENCE: Final = aiohttp.ClientTimeout(total=None, connect=3, sock_read=120)
#: Objects in one answer to a list.
_PAGE: Final = 250
#: Of a log, its last lines, and of these no more than this many bytes.
_LOG_LINES, _LOG_BYTES = 10, 4096


class Cluster:
    """One namespace of one cluster."""

    def __init__(self, kubeconfig: str | None, namespace: str) -> None:
        """`kubeconfig` is None inside a pod of the cluster."""
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._client: Any = None

    async def create_job(self, manifest: JSONObject) -> str:
        """Create a Job, or find it created; give its uid. Raises ClusterAway or Rejected."""
        try:
            made = await self._ask("POST", "jobs", body=manifest)
        except _Taken:
            metadata: Any = manifest["metadata"]
            made = await self._ask("GET", "jobs", metadata["name"])
        return str(made["metadata"]["uid"])

    async def create_secret(self, manifest: JSONObject) -> None:
        """Create a Secret, or find it created. Raises ClusterAway or Rejected."""
        try:
            await self._ask("POST", "secrets", body=manifest)
        except _Taken:
            return

    async def start_job(self, name: str) -> None:
        """Let a Job that was created begin; again changes nothing. Raises ClusterAway or Rejected."""
        await self._ask("PATCH", "jobs", name, body={"spec": {"suspend": False}})

    async def delete_job(self, name: str) -> bool:
        """Have a Job go once its pod is gone; False when there is none (any more). Raises ClusterAway or Rejected."""
        body: JSONObject = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        try:
            await self._ask("DELETE", "jobs", name, body=body)
        except _Missing:
            return False
        return True

    async def has_job(self, name: str) -> bool:
        """Tell whether there is a Job of this name. Raises ClusterAway or Rejected."""
        try:
            await self._ask("GET", "jobs", name)
        except _Missing:
            return False
        return True

    async def end_of_log(self, pod: str) -> str:
        """Give the last lines of a pod's log; nothing where there is none. Raises ClusterAway or Rejected."""
        query = {"tailLines": str(_LOG_LINES), "limitBytes": str(_LOG_BYTES), "container": "runner"}
        try:
            answer = await self._request("GET", "pods", f"{pod}/log", query=query)
            return (await _body(answer)).decode(errors="replace").strip()
        except _Missing:
            return ""

    async def list(self, kind: Kind) -> tuple[list[Object], str]:
        """List all of ours, and the version from which to watch on. Raises ClusterAway or Rejected, or TooOld."""
        found: list[Object] = []
        query = {"labelSelector": SELECTOR, "limit": str(_PAGE)}
        while True:
            page = await self._ask("GET", kind, query=query)
            found += page["items"]
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return found, str(metadata["resourceVersion"])
            query = {**query, "continue": metadata["continue"]}

    async def watch(self, kind: Kind, since: str) -> AsyncIterator[tuple[str, Object]]:
        """Give what changes after a version: ADDED, MODIFIED, DELETED or BOOKMARK, and the object.

        Ends when the API ends it; raises ClusterAway when it breaks off, TooOld when it has to begin with a list.
        """
        query = {
            "labelSelector": SELECTOR, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }  # fmt: skip
        answer = await self._request("GET", kind, query=query, patience=_WATCH_PATIENCE)
        try:
            async for line in answer.content:
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise _of_status(event["object"].get("code"), str(event["object"].get("message")))
                yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterAway(f"the watch of {kind} broke off: {error or type(error).__name__}") from error
        finally:
            answer.close()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _ask(
        self, verb: str, kind: str, name: str = "", *, body: JSONObject | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:  # fmt: skip
        answer = await self._request(verb, kind, name, body=body, query=query)
        return orjson.loads(await _body(answer))

    async def _request(
        self, verb: str, kind: str, name: str = "", *, body: JSONObject | None = None,
        query: Mapping[str, str] | None = None, patience: aiohttp.ClientTimeout = _PATIENCE,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """Send a request; give the answer once it is known to be a success."""
        client = await self._open()
        path = f"{_ROOTS[kind]}/namespaces/{self._namespace}/{kind}{f'/{name}' if name else ''}"
        content = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": content}
        request = await client.param_serialize(
            verb, path, query_params=list((query or {}).items()), header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            answer: aiohttp.ClientResponse = (await client.call_api(*request, _request_timeout=patience)).response
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise _of_status(answer.status, _message(await answer.read()))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterAway(f"the cluster's API does not answer: {error or type(error).__name__}") from error
        return answer

    async def _open(self) -> Any:
        """Make the client when it is first needed. Raises Unavailable where no cluster is named, and none is around."""
        if self._client is None:
            # Imported only here: not every worker has the extra.
            try:
                from kubernetes.aio import config
                from kubernetes.aio.client.api_client import ApiClient
                from kubernetes.aio.client.configuration import Configuration
            except ImportError as error:
                raise Unavailable("the Kubernetes client is missing; install it: pip install 'flo[k8s]'") from error
            known = Configuration()
            try:
                if self._kubeconfig is not None:
                    await config.load_kube_config(self._kubeconfig, client_configuration=known)
                else:
                    config.load_incluster_config(client_configuration=known)
            except (config.ConfigException, OSError) as error:
                where = f"KUBECONFIG is {self._kubeconfig}" if self._kubeconfig else "KUBECONFIG is not set"
                raise Unavailable(f"no cluster can be reached: {where}; {error}") from error
            self._client = ApiClient(known)
        return self._client


class _Taken(Rejected):
    """There is one of this name."""


class _Missing(Rejected):
    """There is none of this name."""


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ClusterAway(f"the cluster's API broke off its answer: {error or type(error).__name__}") from error


def _of_status(status: object, message: str) -> Exception:
    match status:
        case HTTPStatus.CONFLICT:
            return _Taken(message)
        case HTTPStatus.NOT_FOUND:
            return _Missing(message)
        case HTTPStatus.GONE:
            return TooOld(message)
        case HTTPStatus.FORBIDDEN if "exceeded quota" in message:
            return ClusterAway(f"the cluster has no room: {message}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return ClusterAway(f"the cluster's API is too busy: {message}")
        case int() if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Rejected(f"the cluster's API answers {int(status)}: {message}")
        case _:
            return ClusterAway(f"the cluster's API answers {status}: {message}")


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")
