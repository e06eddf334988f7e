"""The Lambda executors, without an API to call back: what they lend is kept here."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from unittest.mock import patch

from executor_places import Limits, Place

from schemas.outcome import Away, Outcome
from schemas.run import RunStatus
from schemas.settings import ExecutorName, load_settings
from tests.carriers import CREDENTIALS
from tests.servers import LambdaServer
from workers.engine.sink import EventSink, MemorySink
from workers.executors.awslambda.executor import LambdaExecutor
from workers.executors.base import RunOrder
from workers.executors.loan import Loan

#: The double's functions: AWS's runtime answers in one piece, ours streams.
FUNCTIONS = {"lambda_invoke": "flo", "lambda_stream": "flo-stream"}


class MemoryBook:
    """What `LoanBook` keeps in SQL, for one worker."""

    def __init__(self) -> None:
        self.lent: dict[tuple[str, int], Loan] = {}
        self.settled: defaultdict[tuple[str, int], asyncio.Future[Outcome]] = defaultdict(
            lambda: asyncio.get_running_loop().create_future()
        )

    async def lend(self, order: RunOrder, events: EventSink, loan: Loan) -> None:
        self.lent[order.run_id, order.attempt] = loan

    async def token(self, order: RunOrder, *, begins_within: timedelta) -> str:
        return f"token of {order.run_id}"

    async def settle(self, run_id: str, attempt: int, outcome: Outcome) -> RunStatus | None:
        self.settled[run_id, attempt].set_result(outcome)
        return RunStatus.RUNNING


@dataclass
class LambdaPlace(Place):
    """A run that its worker lets go of is over when its function is."""

    book: MemoryBook = field(default_factory=MemoryBook)
    function: str = ""

    async def run(self, order: RunOrder, events: MemorySink | None = None) -> Outcome:
        outcome = await self.executor.run(order, events or MemorySink())
        if not isinstance(outcome, Away):
            return outcome
        settled = await self.book.settled[order.run_id, order.attempt]
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return settled


@asynccontextmanager
async def opened_lambda(
    name: str, server: LambdaServer, *, patience: timedelta = timedelta(minutes=1), **variables: str
) -> AsyncIterator[LambdaPlace]:
    """Open the worker's side of a function of the double."""
    limits, book = Limits(), MemoryBook()
    settings = load_settings({"LAMBDA_EXECUTOR_FUNCTION": FUNCTIONS[name], **server.environment, **variables})
    executor = LambdaExecutor(settings, name=ExecutorName(name), limits=limits, book=book, patience=patience)
    with patch.dict(os.environ, CREDENTIALS):  # where boto3 looks for them, when it is first asked
        try:
            yield LambdaPlace(executor, limits, book, FUNCTIONS[name])
        finally:
            await executor.aclose()
