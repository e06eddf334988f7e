"""The routes of Lambda's API that a worker uses, and those by which a test looks in and does mischief."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.lambda_double.framing import chunk, complete
from tests.lambda_double.functions import Function, Throttled, Told
from tests.lambda_double.instances import EmulatedInstance, FunctionError, StreamingInstance, Terms


class Service:
    """Lambda."""

    def __init__(self, terms: Terms, *, most: int) -> None:
        self._functions = {
            "flo": Function(EmulatedInstance.start, terms, most=most),
            "flo-stream": Function(StreamingInstance.start, terms, most=most),
        }
        self._queued: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/2015-03-31/functions/{name}/invocations", self.invoke, methods=["POST"]),
                Route("/2021-11-15/functions/{name}/response-streaming-invocations", self.stream, methods=["POST"]),
                Route("/url/{name}", self.url, methods=["POST"]),
                Route("/streaming-url/{name}", self.streaming_url, methods=["POST"]),
                Route("/test/functions/{name}", self.state),
                Route("/test/functions/{name}/busy", self.wait_busy),
                Route("/test/functions/{name}/kill", self.kill, methods=["POST"]),
            ],
            exception_handlers={Throttled: _throttled, KeyError: _unknown},
        )

    async def close(self) -> None:
        for task in self._queued:
            task.cancel()
        await asyncio.gather(*self._queued, return_exceptions=True)
        for function in self._functions.values():
            await function.close()

    async def invoke(self, request: Request) -> Response:
        function, event = self._of(request), await request.body()
        if request.headers.get("x-amz-invocation-type") == "Event":
            task = asyncio.create_task(_in_turn(function, event))
            self._queued.add(task)
            task.add_done_callback(self._queued.discard)
            return Response(status_code=202)
        try:
            return Response(await function.whole(event), media_type="application/json")
        except FunctionError as error:
            return Response(error.payload, headers={"X-Amz-Function-Error": "Unhandled"}, media_type="application/json")

    async def stream(self, request: Request) -> Response:
        told = self._of(request).begin(await request.body())
        return StreamingResponse(_messages(told), media_type="application/vnd.amazon.eventstream")

    async def url(self, request: Request) -> Response:
        """Answer as a Function URL does that is not streamed."""
        if (event := await _http_event(request)) is None:
            return JSONResponse({"Message": "Forbidden"}, 403)
        try:
            return Response(await self._of(request).whole(event), media_type="application/json")
        except FunctionError:
            return PlainTextResponse("Internal Server Error", 502)

    async def streaming_url(self, request: Request) -> Response:
        if (event := await _http_event(request)) is None:
            return JSONResponse({"Message": "Forbidden"}, 403)
        return StreamingResponse(_pieces(self._of(request).begin(event)), media_type="application/x-ndjson")

    async def state(self, request: Request) -> Response:
        one = self._of(request)
        state = {"busy": len(one.busy), "begun": one.begun, "started": one.started, "throttled": one.throttled}
        return JSONResponse(state)

    async def wait_busy(self, request: Request) -> Response:
        """Answer as soon as an invocation is under way."""
        await self._of(request).in_use.wait()
        return await self.state(request)

    async def kill(self, request: Request) -> Response:
        """Kill the runtimes in which invocations are under way."""
        busy = list(self._of(request).busy)
        for one in busy:
            one.kill()
        return JSONResponse({"killed": len(busy)})

    def _of(self, request: Request) -> Function:
        return self._functions[request.path_params["name"]]


async def _in_turn(function: Function, event: bytes) -> None:
    """Execute a queued event, once, as soon as there is room."""
    while True:
        try:
            await function.whole(event)
        except Throttled:
            await asyncio.sleep(0.05)
        except FunctionError:
            return
        else:
            return


async def _messages(told: Told) -> AsyncIterator[bytes]:
    while (piece := await told.get()) is not None:
        if isinstance(piece, FunctionError):
            said = json.loads(piece.payload)
            yield complete(said.get("errorType") or "Unhandled", said.get("errorMessage", ""))
            return
        yield chunk(piece)
    yield complete()


async def _pieces(told: Told) -> AsyncIterator[bytes]:
    while (piece := await told.get()) is not None:
        if isinstance(piece, FunctionError):
            raise piece  # the connection breaks off: more than that a URL does not tell
        yield piece


async def _http_event(request: Request) -> bytes | None:
    """Make the event that a Function URL gives; None for a request that is not signed."""
    if not request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 "):
        return None
    http = {"method": "POST", "path": "/", "protocol": "HTTP/1.1"}
    event = {"version": "2.0", "requestContext": {"http": http}, "body": (await request.body()).decode()}
    return json.dumps({**event, "isBase64Encoded": False}).encode()


async def _throttled(request: Request, error: Exception) -> Response:
    said = {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."}
    return JSONResponse(said, 429, headers={"x-amzn-ErrorType": "TooManyRequestsException"})


async def _unknown(request: Request, error: Exception) -> Response:
    said = {"Type": "User", "Message": f"Function not found: {error}"}
    return JSONResponse(said, 404, headers={"x-amzn-ErrorType": "ResourceNotFoundException"})
