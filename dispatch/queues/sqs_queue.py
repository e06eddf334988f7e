"""The SQS carrier: one queue per lane, sent to in batches of ten, several calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from dispatch.queues.redis_queue import envelope
from dispatch.queues.sqs_client import BATCH, Entry, SqsClient
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.settings import Settings

#: Calls under way at once.
_AT_ONCE = 16
#: How often entries that SQS refused through no fault of ours are sent again.
_TRIES = 3


class SqsQueue:
    """Publishes to the queues that workers receive from."""

    def __init__(self, settings: Settings) -> None:
        self._client = SqsClient(settings, threads=_AT_ONCE)

    async def publish(self, jobs: Sequence[Job]) -> None:
        lanes: dict[str, list[Job]] = {}
        for job in jobs:
            lanes.setdefault(job.queue, []).append(job)
        batches = [(queue, batch) for queue, lane in lanes.items() for batch in _tens(lane)]
        # Each to its end: what was sent twice because another call failed is only a doubled hint.
        ends = await asyncio.gather(*(self._send(*batch) for batch in batches), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def depth(self, queue: str) -> int:
        return await self._client.count(queue)

    async def ping(self) -> None:
        await self._client.ping()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _send(self, queue: str, jobs: Sequence[Job]) -> None:
        left = {str(index): self._entry(str(index), job) for index, job in enumerate(jobs)}
        for _ in range(_TRIES):
            failed = await self._client.send(queue, list(left.values()))
            if not failed:
                return
            left = {entry["Id"]: left[entry["Id"]] for entry in failed}
            if any(entry.get("SenderFault") for entry in failed):
                break
        reason = failed[0].get("Message") or failed[0].get("Code")
        raise Unavailable(f"SQS took {len(jobs) - len(left)} of {len(jobs)} messages for {queue!r} ({reason})")

    def _entry(self, number: str, job: Job) -> Entry:
        entry: dict[str, Any] = {"Id": number, "MessageBody": envelope(job)}
        if self._client.fifo:
            entry |= {"MessageGroupId": job.app, "MessageDeduplicationId": job.task_id}
        return entry


def _tens(jobs: list[Job]) -> list[Sequence[Job]]:
    return [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
