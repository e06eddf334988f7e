"""The routes: batch/v1 Jobs, core/v1 Pods, their logs, and Secrets; create, get, list, watch, patch, delete.

`/double/...` is how a test has things go wrong; no real API has it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.k8s_double.checks import mistakes, nonsense
from tests.k8s_double.jobs import Jobs
from tests.k8s_double.kubelet import Kubelet
from tests.k8s_double.mischief import Mischief
from tests.k8s_double.shelf import Exists, Gone, Object, Shelf, matches

#: The path of each kind, and what its objects are called.
_KINDS = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret")}
#: Seconds for which a watch lasts unless it says otherwise, and between two of its bookmarks.
_WATCH, _BOOKMARK = 300.0, 1.0


class Api:
    """One API server, for whoever shows its token."""

    def __init__(self, shelf: Shelf, jobs: Jobs, kubelet: Kubelet, mischief: Mischief, *, token: str) -> None:
        self._shelf = shelf
        self._jobs = jobs
        self._kubelet = kubelet
        self._mischief = mischief
        self._token = token
        self._pages: dict[str, tuple[int, list[Object]]] = {}
        self._numbers = itertools.count(1)

    def app(self) -> Starlette:
        routes = []
        for plural, (api_version, _) in _KINDS.items():
            root = f"/{'apis' if '/' in api_version else 'api'}/{api_version}/namespaces/{{namespace}}/{plural}"
            routes += [
                Route(root, self.list, methods=["GET"]),
                Route(root, self.create, methods=["POST"]),
                Route(f"{root}/{{name}}", self.read, methods=["GET"]),
                Route(f"{root}/{{name}}", self.delete, methods=["DELETE"]),
            ]
        routes.append(Route("/apis/batch/v1/namespaces/{namespace}/jobs/{name}", self.patch, methods=["PATCH"]))
        routes += [
            Route("/api/v1/namespaces/{namespace}/pods/{name}/log", self.log, methods=["GET"]),
            Route("/double/{act}", self.misbehave, methods=["POST"]),
            Route("/double/state", self.state, methods=["GET"]),
        ]
        return Starlette(routes=routes, middleware=[], exception_handlers={Refusal: _refuse})

    async def create(self, request: Request) -> Response:
        kind = await self._admit(request)
        given: Object = orjson.loads(await request.body())
        given.setdefault("metadata", {}).setdefault("namespace", request.path_params["namespace"])
        if wrong := mistakes(given):
            raise Refusal(HTTPStatus.BAD_REQUEST, "BadRequest", "; ".join(wrong))
        if wrong := list(nonsense(given)):
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", "; ".join(wrong))
        try:
            made = self._jobs.create(given) if kind == "Job" else self._shelf.create(kind, given)
        except Exists as name:
            message = f'{request.path_params["plural"]} "{name}" already exists'
            raise Refusal(HTTPStatus.CONFLICT, "AlreadyExists", message) from None
        return JSONResponse(made, HTTPStatus.CREATED)

    async def read(self, request: Request) -> Response:
        return JSONResponse(self._stored(await self._admit(request), request))

    async def list(self, request: Request) -> Response:
        kind = await self._admit(request)
        query = request.query_params
        if query.get("watch") in ("true", "1", "True"):
            return StreamingResponse(self._watch(kind, request), media_type="application/json")
        if token := query.get("continue"):
            version, rest = self._page(token)
        else:
            version, rest = self._shelf.version, self._shelf.all(kind, request.path_params["namespace"])
            rest = [each for each in rest if matches(each, query.get("labelSelector", ""))]
        most = int(query.get("limit") or 0) or len(rest)
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if rest[most:]:
            metadata |= {"continue": f"page{next(self._numbers)}", "remainingItemCount": len(rest) - most}
            self._pages[metadata["continue"]] = (version, rest[most:])
        api_version = next(of for of, each in _KINDS.values() if each == kind)
        whole = {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata, "items": rest[:most]}
        return JSONResponse(whole)

    async def patch(self, request: Request) -> Response:
        kind = await self._admit(request)
        said = orjson.loads(await request.body())
        return JSONResponse(self._jobs.patch(self._stored(kind, request), said["spec"]["suspend"]))

    async def delete(self, request: Request) -> Response:
        kind = await self._admit(request)
        stored = self._stored(kind, request)
        body = orjson.loads(await request.body() or b"{}")
        said = request.query_params.get("propagationPolicy") or body.get("propagationPolicy") or "Background"
        if kind == "Job":
            self._jobs.delete(stored, said)
        elif kind == "Pod":
            self._kubelet.end(stored)
        else:
            self._shelf.remove(stored)
        details = {"name": stored["metadata"]["name"], "uid": stored["metadata"]["uid"]}
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return JSONResponse(self._shelf.get(kind, stored["metadata"]["namespace"], details["name"]) or done)

    async def log(self, request: Request) -> Response:
        await self._admit(request, kind="Pod")
        pod = self._stored("Pod", request)
        text = self._kubelet.log_of(pod["metadata"]["name"])
        if lines := request.query_params.get("tailLines"):
            text = "\n".join(text.splitlines()[-int(lines) :])
        return PlainTextResponse(text[: int(request.query_params.get("limitBytes", len(text) or 1))])

    async def misbehave(self, request: Request) -> Response:
        """Do as a test says: `drop-watches`, `compact`, `fail`, `slow`, `evict`, `lose-node`, `kill`."""
        said = orjson.loads(await request.body() or b"{}")
        match request.path_params["act"]:
            case "drop-watches":
                self._shelf.drop_watches()
            case "compact":
                self._shelf.compact()
            case "fail":
                self._mischief.fail(**said)
            case "slow":
                self._mischief.delay_s = said["seconds"]
            case "evict":
                self._kubelet.evict(said["job"], said["message"])
            case "lose-node":
                self._kubelet.lose(said["job"])
            case "kill":
                self._kubelet.kill(said["job"], said["signal"])
            case act:
                return PlainTextResponse(f"{act!r} is no mischief", HTTPStatus.NOT_FOUND)
        return JSONResponse({})

    async def state(self, request: Request) -> Response:
        """Tell what a test wants to be sure of: which processes live, when others did, and what was asked."""
        stored = [each for kind in ("Job", "Pod", "Secret") for each in self._shelf.all(kind)]
        pids, lives = self._kubelet.pids(), self._kubelet.lives
        return JSONResponse({"pids": pids, "lives": lives, "asked": self._mischief.asked, "stored": stored})

    async def _watch(self, kind: str, request: Request) -> AsyncIterator[bytes]:
        """Tell changes as they come, and from time to time how far the history is."""
        query = request.query_params
        after = int(query.get("resourceVersion") or self._shelf.version)
        loop = asyncio.get_running_loop()
        until = loop.time() + float(query.get("timeoutSeconds") or _WATCH)
        changes = self._shelf.follow(kind, request.path_params["namespace"], after, until=until)
        coming = asyncio.ensure_future(anext(changes, None))
        try:
            while True:
                told = self._shelf.version  # what is not told once the wait is over, was no change of this kind
                done, _ = await asyncio.wait([coming], timeout=_BOOKMARK)
                if not done:
                    if query.get("allowWatchBookmarks") in ("true", "1", "True"):
                        yield _line("BOOKMARK", self._bookmark(kind, told))
                    continue
                change = coming.result()
                if change is None:
                    return
                if matches(change.object, query.get("labelSelector", "")):
                    yield _line(change.type, change.object)
                coming = asyncio.ensure_future(anext(changes, None))
        except Gone as gone:
            yield _line("ERROR", _status(HTTPStatus.GONE, "Expired", str(gone)))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await changes.aclose()

    def _bookmark(self, kind: str, version: int) -> Object:
        api_version = next(of for of, each in _KINDS.values() if each == kind)
        return {"kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": str(version)}}

    async def _admit(self, request: Request, *, kind: str | None = None) -> str:
        """Say of which kind a request is, unless it is refused, or is to fail."""
        plural = next(part for part in reversed(request.url.path.split("/")) if part in _KINDS)
        request.path_params["plural"] = plural
        if request.headers.get("authorization") != f"Bearer {self._token}":
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")
        verb = "watch" if "watch" in request.query_params else request.method.lower()
        if (status := await self._mischief.meet(verb, plural)) is not None:
            raise Refusal(HTTPStatus(status), HTTPStatus(status).phrase.replace(" ", ""), "so the test wants it")
        return kind or _KINDS[plural][1]

    def _stored(self, kind: str, request: Request) -> Object:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        stored = self._shelf.get(kind, namespace, name)
        if stored is None:
            message = f'{request.path_params["plural"]} "{name}" not found'
            raise Refusal(HTTPStatus.NOT_FOUND, "NotFound", message)
        return stored

    def _page(self, token: str) -> tuple[int, list[Object]]:
        version, rest = self._pages.pop(token, (-1, []))
        if version < self._shelf.compacted:
            message = "The provided continue parameter is too old"
            raise Refusal(HTTPStatus.GONE, "Expired", message)
        return version, rest


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"Retry-After": "1"} if error.status == HTTPStatus.TOO_MANY_REQUESTS else None
    return JSONResponse(_status(error.status, error.reason, str(error)), error.status, headers=headers)


def _status(status: HTTPStatus, reason: str, message: str) -> Object:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": int(status),
    }  # fmt: skip


def _line(type_: str, object_: Object) -> bytes:
    return orjson.dumps({"type": type_, "object": object_}) + b"\n"
