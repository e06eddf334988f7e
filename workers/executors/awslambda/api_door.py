"""Invokes a function by Lambda's API. boto3 blocks, so each invocation takes a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Final, NoReturn

import boto3
from botocore.config import Config
from botocore.eventstream import ParserError
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NotConnected
from urllib3.exceptions import HTTPError

from schemas.errors import Unavailable
from schemas.lambda_functions import InvocationType
from schemas.settings import Settings
from workers.executors.awslambda.errors import BrokeOff, FunctionFailed, NeverBegan, Throttled, failure_in
from workers.executors.awslambda.threads import Answer, DaemonThreads, NoRoom

#: Seconds without a byte after which a connection is given up: Lambda ends a function after 900.
_LONGEST: Final = 960
#: Answers after which nothing has run, and the same request may be taken later.
_THROTTLED: Final = frozenset(
    {
        "TooManyRequestsException", "ThrottlingException", "Throttling", "RequestLimitExceeded",
        "EC2ThrottledException", "ResourceConflictException", "ResourceNotReadyException",
        "SnapStartNotReadyException", "ENINotReadyException",
    }
)  # fmt: skip
#: What boto3 raises, and what it lets through while an answer is read.
_TROUBLE: Final = (ClientError, BotoCoreError, HTTPError, ParserError, OSError)
_FIX: Final = "check AWS_REGION, AWS_ENDPOINT_URL and the credentials (AWS_ACCESS_KEY_ID or a role)"


class LambdaApi:
    """One worker's client of Lambda; threads may share it."""

    def __init__(self, settings: Settings) -> None:
        """Raises Unavailable, with the fix, when there is no region."""
        self._threads = DaemonThreads(settings.max_concurrency, name="flo-lambda")
        try:
            self._client: Any = boto3.client(
                "lambda",
                region_name=settings.aws_region,
                endpoint_url=settings.aws_endpoint_url,
                config=Config(
                    connect_timeout=5,
                    read_timeout=_LONGEST,
                    max_pool_connections=settings.max_concurrency,
                    tcp_keepalive=True,
                    # A request that is sent again runs the function again.
                    retries={"total_max_attempts": 1},
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise Unavailable(f"Lambda can't be asked ({error}); {_FIX}") from error

    def door(self, function: str, *, streams: bool) -> ApiDoor:
        return ApiDoor(self._client, self._threads, function, streams=streams)

    def close(self) -> None:
        self._client.close()


class ApiDoor:
    """A function by its name or ARN."""

    def __init__(self, client: Any, threads: DaemonThreads, function: str, *, streams: bool) -> None:
        self._client = client
        self._threads = threads
        self._function = function
        self._streams = streams

    async def ask(self, event: bytes, *, begins: Callable[[], None]) -> AsyncIterator[bytes]:
        if not self._streams:
            yield await self._in_thread(partial(self._invoke, event), begins=begins)
            return
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

        def hear(piece: bytes | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        call = asyncio.ensure_future(self._in_thread(partial(self._stream, event, hear), begins=begins))
        call.add_done_callback(lambda _: pieces.put_nowait(None))
        while (piece := await pieces.get()) is not None:
            yield piece
        call.result()

    async def send(self, event: bytes) -> None:
        await self._in_thread(partial(self._invoke, event, InvocationType.EVENT))

    async def _in_thread(self, work: Callable[[], Answer], *, begins: Callable[[], None] = lambda: None) -> Answer:
        try:
            return await self._threads.call(work, begins=begins)
        except NoRoom:
            raise Throttled("this worker waits for as many functions as it may") from None

    def _invoke(self, event: bytes, way: InvocationType = InvocationType.REQUEST_RESPONSE) -> bytes:
        try:
            answer = self._client.invoke(FunctionName=self._function, InvocationType=str(way), Payload=event)
            payload: bytes = answer["Payload"].read()
        except _TROUBLE as error:
            self._raise(error)
        if answer.get("FunctionError"):
            raise failure_in(payload)
        return payload

    def _stream(self, event: bytes, hear: Callable[[bytes], None]) -> None:
        try:
            answer = self._client.invoke_with_response_stream(FunctionName=self._function, Payload=event)
            for said in answer["EventStream"]:
                if "PayloadChunk" in said:
                    hear(said["PayloadChunk"]["Payload"])
                elif (end := said.get("InvokeComplete")) is not None:
                    if end.get("ErrorCode"):
                        raise FunctionFailed(str(end["ErrorCode"]), str(end.get("ErrorDetails", "")))
                    return
        except _TROUBLE as error:
            self._raise(error)
        raise BrokeOff("the stream ended before the function did")

    def _raise(self, error: Exception) -> NoReturn:
        match error:
            case NotConnected():
                raise NeverBegan(f"Lambda at {self._client.meta.endpoint_url} can't be reached; {_FIX}") from error
            case ClientError() if not isinstance(error, EventStreamError):
                raise self._refusal(error.response) from error
            case BotoCoreError() if not isinstance(error, HTTPClientError | IncompleteReadError):
                raise NeverBegan(f"Lambda was not asked ({error}); {_FIX}") from error
            case _:
                raise BrokeOff(f"{type(error).__name__}: {error}") from error

    def _refusal(self, response: Mapping[str, Any]) -> Throttled | NeverBegan | BrokeOff:
        code = str(response.get("Error", {}).get("Code", ""))
        message = str(response.get("Error", {}).get("Message", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = f"Lambda refused to invoke {self._function} ({code}: {message})"
        if code in _THROTTLED or status == 429:
            return Throttled(said)
        if code == "ResourceNotFoundException":
            return NeverBegan(f"{said}; name a function of this account and region in LAMBDA_EXECUTOR_FUNCTION")
        if "AccessDenied" in code or status == 403:
            return NeverBegan(f"{said}; give these credentials the permission lambda:InvokeFunction on it")
        if status >= 500 and code in ("ServiceException", "", str(status)):
            return BrokeOff(said)
        return NeverBegan(said)
