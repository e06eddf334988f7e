"""SQS as the publisher and the worker both use it: names, queues made when missing, batch calls in threads.

boto3 blocks, so each call takes a thread of the client's own pool; botocore's clients may be shared by threads.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from schemas.errors import Unavailable
from schemas.json import dumps
from schemas.settings import Settings

log = structlog.get_logger()

#: Most messages in one call of SQS.
BATCH = 10
#: How often SQS hands a message out before it moves it to the dead letters: one that keeps killing its readers.
_MOST_RECEIVES = 20
#: Seconds that SQS keeps a lane's messages, and dead ones: its own maximum, as SQL knows what is still wanted.
_KEPT = 14 * 24 * 3600
#: Longest wait for an answer, in seconds: more than a long poll takes. A connection that has fallen silent is noticed.
_ANSWER = 10
#: What a queue's name may not contain.
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")

Answer = TypeVar("Answer")
Entry = dict[str, Any]


class SqsClient:
    """Calls SQS by the names of Flo's lanes. Every method raises Unavailable, with the fix."""

    def __init__(self, settings: Settings, *, threads: int) -> None:
        self.fifo = settings.sqs_fifo
        self._prefix = settings.sqs_queue_prefix
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flo-sqs")
        self._urls: dict[str, str] = {}
        self._making = asyncio.Lock()
        try:
            self._sqs: Any = boto3.client(
                "sqs",
                region_name=settings.aws_region,
                endpoint_url=settings.aws_endpoint_url,
                config=Config(
                    connect_timeout=5,
                    read_timeout=_ANSWER,
                    max_pool_connections=threads,
                    retries={"mode": "standard", "total_max_attempts": 2},
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise _unavailable(error) from error
        self._endpoint = str(self._sqs.meta.endpoint_url)

    def name_of(self, queue: str, *, dead: bool = False) -> str:
        """Name a lane's SQS queue, or the queue of its dead letters."""
        name = _FORBIDDEN.sub("-", f"{self._prefix}{queue}{'-dead' if dead else ''}")
        return f"{name}.fifo" if self.fifo else name

    async def send(self, queue: str, entries: Sequence[Entry], *, dead: bool = False) -> list[Entry]:
        """Send up to ten messages; answer those that SQS refused, each with its reason."""
        return await self._batch("SendMessageBatch", self._sqs.send_message_batch, queue, entries, dead=dead)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[Entry]:
        """Take up to ten received messages off the queue; answer those that SQS refused."""
        entries = [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)]
        return await self._batch("DeleteMessageBatch", self._sqs.delete_message_batch, queue, entries)

    async def give_back(self, queue: str, receipts: Sequence[str]) -> list[Entry]:
        """Let up to ten received messages be received again at once; answer those that SQS refused."""
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
            for index, receipt in enumerate(receipts)
        ]
        call = self._sqs.change_message_visibility_batch
        return await self._batch("ChangeMessageVisibilityBatch", call, queue, entries)

    async def receive(self, queue: str, *, most: int, wait: int, hidden: int) -> list[Entry]:
        """Receive up to `most` messages, waiting `wait` seconds; they stay hidden from others for `hidden` seconds."""
        answer = await self._call(
            "ReceiveMessage",
            queue,
            self._sqs.receive_message,
            MaxNumberOfMessages=min(most, BATCH),
            WaitTimeSeconds=wait,
            VisibilityTimeout=hidden,
        )
        return list(answer.get("Messages", ()))

    async def count(self, queue: str) -> int:
        """Count a queue's messages, those included that somebody has received: SQS will give them out again."""
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        answer = await self._call("GetQueueAttributes", queue, self._sqs.get_queue_attributes, AttributeNames=names)
        return sum(int(answer["Attributes"].get(name, 0)) for name in names)

    async def ping(self) -> None:
        """Raise Unavailable when SQS does not answer or does not let us in."""
        await self._in_thread(partial(self._sqs.list_queues, QueueNamePrefix=self._prefix, MaxResults=1))

    async def aclose(self) -> None:
        """Wait for calls under way, then close."""
        await asyncio.to_thread(self._threads.shutdown)
        self._sqs.close()

    async def _batch(
        self, action: str, call: Callable[..., Any], queue: str, entries: Sequence[Entry], *, dead: bool = False
    ) -> list[Entry]:
        answer = await self._call(action, queue, call, dead=dead, Entries=list(entries))
        return list(answer.get("Failed", ()))

    async def _call(
        self, action: str, queue: str, call: Callable[..., Any], *, dead: bool = False, **arguments: Any
    ) -> Any:
        name = self.name_of(queue, dead=dead)
        what = f"{action} on queue {name!r}"
        for _ in range(2):
            url = self._urls.get(name) or await self._find(queue, dead=dead)
            try:
                return await self._in_thread(partial(call, QueueUrl=url, **arguments), what=what)
            except _Gone:
                # Deleted, or lost by a server that keeps its queues in memory: made anew, and tried once more.
                self._urls.pop(name, None)
        raise Unavailable(f"SQS lost the queue {name!r} as soon as it was made")

    async def _find(self, queue: str, *, dead: bool = False) -> str:
        """Look up a queue's URL; make the queue, and the one of its dead letters, when they are missing."""
        async with self._making:
            name = self.name_of(queue, dead=dead)
            if name not in self._urls:
                try:
                    answer = await self._in_thread(
                        partial(self._sqs.get_queue_url, QueueName=name), what=f"GetQueueUrl of {name!r}"
                    )
                    self._urls[name] = answer["QueueUrl"]
                except _Gone:
                    self._urls[name] = await self._make(queue, dead=dead)
            return self._urls[name]

    async def _make(self, queue: str, *, dead: bool) -> str:
        name = self.name_of(queue, dead=dead)
        attributes: dict[str, str] = {"MessageRetentionPeriod": str(_KEPT)}
        if self.fifo:
            attributes["FifoQueue"] = "true"
        if not dead:
            dead_url = await self._make(queue, dead=True)
            found = await self._in_thread(
                partial(self._sqs.get_queue_attributes, QueueUrl=dead_url, AttributeNames=["QueueArn"]),
                what=f"GetQueueAttributes of {self.name_of(queue, dead=True)!r}",
            )
            target = {"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": _MOST_RECEIVES}
            attributes["RedrivePolicy"] = dumps(target)
        make = partial(self._sqs.create_queue, QueueName=name, Attributes=attributes)
        answer = await self._in_thread(make, what=f"CreateQueue {name!r}")
        log.info("sqs.queue_made", queue=name)
        return str(answer["QueueUrl"])

    async def _in_thread(self, call: Callable[[], Answer], *, what: str = "the call") -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code.endswith(("NonExistentQueue", "QueueDoesNotExist")):
                raise _Gone from error
            raise _refused(what, error.response.get("Error", {})) from error
        except (BotoCoreError, OSError) as error:
            raise _unavailable(error, at=self._endpoint) from error


class _Gone(Exception):
    """There is no such queue."""


def _refused(what: str, error: Mapping[str, Any]) -> Unavailable:
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    if "AccessDenied" in code or "AuthorizationError" in code:
        # A batch call needs the permission of the single one.
        action = what.split(maxsplit=1)[0].removesuffix("Batch")
        return Unavailable(f"SQS does not allow {what} ({message}); give these credentials the permission sqs:{action}")
    return Unavailable(f"SQS refused {what} ({code}: {message})")


def _unavailable(error: Exception, *, at: str | None = None) -> Unavailable:
    where = f" at {at}" if at else ""
    fix = "check AWS_REGION, AWS_ENDPOINT_URL and the credentials (AWS_ACCESS_KEY_ID or a role)"
    return Unavailable(f"SQS{where} does not answer ({error}); {fix}")
