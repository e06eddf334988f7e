"""The worker's side of a function, against real ones: what is lent, what is told, and what each trouble becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from executor_places import javascript
from lambda_places import LambdaPlace, opened_lambda

from dispatch.claims import LostClaim
from schemas.app import AppLimits
from schemas.errors import Unavailable
from schemas.outcome import Away, ErrorKind, Failed, Outcome, Retry, Succeeded
from schemas.run import EventType, Happening
from tests.lambda_double.framing import chunk
from tests.servers import LambdaServer, SqsServer, run_lambda
from workers.engine.sink import MemorySink
from workers.executors.awslambda.errors import FunctionFailed

pytestmark = pytest.mark.timeout(120)

#: Runs until it is ended.
ENDLESS = javascript("export default () => new Promise(() => setInterval(() => {}, 1000))", timeout_ms=600_000)
ONE = javascript("export default () => 1")


@pytest.fixture(scope="module")
def functions() -> Iterator[LambdaServer]:
    """Functions as Lambda has them: no place for commands, a time-out of some seconds, two at once."""
    with run_lambda(
        "--timeout", "5", "--concurrency", "2", "--set", "FLO_EXECUTION_MODE=SANDBOX_CODE_ONLY"
    ) as server:  # fmt: skip
        yield server


@pytest.fixture(params=["lambda_invoke", "lambda_stream"])
async def place(request: pytest.FixtureRequest, functions: LambdaServer) -> AsyncIterator[LambdaPlace]:
    async with opened_lambda(request.param, functions) as opened:
        yield opened


@pytest.fixture
async def invoking(functions: LambdaServer) -> AsyncIterator[LambdaPlace]:
    async with opened_lambda("lambda_invoke", functions) as opened:
        yield opened


@pytest.fixture
async def streaming(functions: LambdaServer) -> AsyncIterator[LambdaPlace]:
    async with opened_lambda("lambda_stream", functions) as opened:
        yield opened


class Noticing(MemorySink):
    """Sets an event at the first thing that is told."""

    def __init__(self) -> None:
        super().__init__()
        self.first = asyncio.Event()

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        self.first.set()


async def wait_busy(server: LambdaServer, function: str) -> None:
    """Return once the function is executing something."""
    async with httpx.AsyncClient(timeout=60) as client:
        await client.get(f"{server.url}/test/functions/{function}/busy")


async def kill_busy(server: LambdaServer, function: str) -> None:
    """Kill the function's process as soon as it is invoked."""
    await wait_busy(server, function)
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{server.url}/test/functions/{function}/kill")).json() == {"killed": 1}


async def started(server: LambdaServer, function: str) -> int:
    """Tell how many processes have been started for the function."""
    async with httpx.AsyncClient() as client:
        return int((await client.get(f"{server.url}/test/functions/{function}")).json()["started"])


async def begun(server: LambdaServer, function: str) -> int:
    async with httpx.AsyncClient() as client:
        return int((await client.get(f"{server.url}/test/functions/{function}")).json()["begun"])


async def test_an_attempt_is_lent_for_as_long_as_its_function_can_run(invoking: LambdaPlace) -> None:
    order = invoking.order(ONE, settings={"max_execution_time_ms": 7_000})

    await invoking.run(order)

    loan = invoking.book.lent[order.run_id, 1]
    assert (loan.backend, loan.handle) == ("lambda_invoke", f"flo:{order.run_id}:1")
    # Patience with a throttled function, a cold start, the flow's limit, and ten seconds to end what is left.
    assert timedelta(seconds=60) < loan.until - datetime.now(UTC) <= timedelta(seconds=60 + 20 + 7 + 10)


async def test_an_attempt_that_cannot_be_lent_is_not_invoked(invoking: LambdaPlace, functions: LambdaServer) -> None:
    async def refuse(*_: Any) -> None:
        raise RuntimeError("SQL is away")

    invoking.book.lend = refuse  # type: ignore[method-assign]
    before = await begun(functions, "flo")

    with pytest.raises(RuntimeError, match="SQL is away"):
        await invoking.run(invoking.order(ONE))

    assert await begun(functions, "flo") == before


async def test_a_stream_is_told_while_the_function_runs(streaming: LambdaPlace) -> None:
    events = Noticing()
    run = asyncio.create_task(streaming.run(streaming.order(ENDLESS), events))

    await events.first.wait()

    assert not run.done()
    assert isinstance(await run, Failed)


async def test_a_flow_is_ended_before_lambda_ends_its_function(place: LambdaPlace) -> None:
    error = await place.error(place.order(ENDLESS))

    assert error.kind is ErrorKind.TIMED_OUT
    assert "raise the function's Timeout" in error.message


async def test_a_function_that_is_killed_used_too_much_memory(place: LambdaPlace, functions: LambdaServer) -> None:
    killing = asyncio.create_task(kill_busy(functions, place.function))

    error = await place.error(place.order(ENDLESS))

    await killing
    assert error.kind is ErrorKind.MEMORY_EXCEEDED
    assert "MemorySize" in error.message


async def test_a_function_has_no_place_for_commands(place: LambdaPlace) -> None:
    error = await place.error(place.order({"id": "it", "node_type": "shell.exec", "config": {"command": "true"}}))

    assert error.kind is ErrorKind.FORBIDDEN
    assert "shell.exec is not allowed in execution mode SANDBOX_CODE_ONLY" in error.message


async def test_more_than_lambda_carries_is_refused_with_the_fix_unless_it_is_streamed(
    invoking: LambdaPlace, streaming: LambdaPlace
) -> None:
    large = javascript("export default () => 'x'.repeat(4_000_000)", max_output_bytes=5_000_000)

    error = await invoking.error(invoking.order(large))

    assert error.kind is ErrorKind.OUTPUT_EXCEEDED
    assert "lambda_stream" in error.message
    assert await streaming.result(streaming.order(large)) == {"output": "x" * 4_000_000}


async def test_an_order_that_is_too_large_is_not_sent(invoking: LambdaPlace) -> None:
    error = await invoking.error(invoking.order(ONE, payload={"text": "x" * 7_000_000}))

    assert error.kind is ErrorKind.INVALID_INPUT
    assert "set FLO_URL" in error.message


async def test_throttled_attempts_wait_for_their_turn(place: LambdaPlace) -> None:
    orders = [place.order(javascript("export default ({n}) => n"), payload={"n": n}) for n in range(6)]

    outcomes = await asyncio.gather(*(place.run(order) for order in orders))

    assert outcomes == [Succeeded(result={"output": n}) for n in range(6)]


async def test_an_attempt_that_is_throttled_for_too_long_is_given_back(functions: LambdaServer) -> None:
    async with opened_lambda("lambda_stream", functions) as busy:
        slow = [asyncio.create_task(busy.run(busy.order(ENDLESS), Noticing())) for _ in range(2)]
        async with opened_lambda("lambda_stream", functions, patience=timedelta(seconds=0.2)) as hasty:
            with pytest.raises(Unavailable, match=r"Rate Exceeded.*FLO_MAX_CONCURRENCY"):
                await _until_throttled(hasty)
        await asyncio.gather(*slow)


async def _until_throttled(place: LambdaPlace) -> None:
    while True:
        await place.result(place.order(ONE))


async def test_a_cancelled_run_is_let_go_and_settled_when_its_function_is_over(
    place: LambdaPlace, functions: LambdaServer
) -> None:
    order = place.order(ENDLESS)
    run = asyncio.create_task(place.executor.run(order, MemorySink()))
    await wait_busy(functions, place.function)

    run.cancel()

    assert isinstance(await run, Away)
    settled = await place.book.settled[order.run_id, 1]
    assert isinstance(settled, Failed)
    assert settled.error.kind is ErrorKind.TIMED_OUT


async def test_a_function_of_another_name_is_asked_for_only_with_the_operator_s_leave(
    invoking: LambdaPlace, functions: LambdaServer
) -> None:
    other = invoking.order(ONE, backend_config={"function": "flo-stream"})

    assert (await invoking.error(other)).kind is ErrorKind.FORBIDDEN
    invoking.limits["acme"] = AppLimits(lambda_functions=("flo-stream",))
    assert await invoking.result(replace(other, attempt=2)) == {"output": 1}


async def test_an_unknown_function_is_named_with_the_variable(functions: LambdaServer) -> None:
    async with opened_lambda("lambda_invoke", functions, LAMBDA_EXECUTOR_FUNCTION="none") as place:
        with pytest.raises(Unavailable, match=r"ResourceNotFoundException.*LAMBDA_EXECUTOR_FUNCTION"):
            await place.run(place.order(ONE))


async def test_moto_s_lambda_knows_no_function_either(sqs_server: SqsServer) -> None:
    moto = LambdaServer(sqs_server.environment["AWS_ENDPOINT_URL"])
    async with opened_lambda("lambda_invoke", moto) as place:
        with pytest.raises(Unavailable, match=r"ResourceNotFoundException.*LAMBDA_EXECUTOR_FUNCTION"):
            await place.run(place.order(ONE))


async def test_a_lambda_that_is_not_there_is_named_with_the_fix() -> None:
    async with opened_lambda("lambda_invoke", LambdaServer("http://127.0.0.1:1")) as place:
        with pytest.raises(Unavailable, match="AWS_ENDPOINT_URL"):
            await place.run(place.order(ONE))


async def test_a_function_that_is_not_waited_for_must_be_able_to_call_back(invoking: LambdaPlace) -> None:
    with pytest.raises(Unavailable, match="set FLO_URL"):
        await invoking.run(invoking.order(ONE, backend_config={"invocation": "Event"}))


async def test_a_function_that_cannot_reach_the_api_says_so(functions: LambdaServer) -> None:
    async with opened_lambda("lambda_invoke", functions, FLO_URL="http://127.0.0.1:1") as place:
        order = place.order(ONE)
        with pytest.raises(LostClaim):  # settled: there is nothing to record
            await place.run(order)
        settled = await place.book.settled[order.run_id, 1]

    assert isinstance(settled, Retry)
    assert "http://127.0.0.1:1" in settled.reason


@pytest.mark.parametrize(
    ("name", "path"), [("lambda_invoke", "url/flo"), ("lambda_stream", "streaming-url/flo-stream")]
)
async def test_a_function_url_gives_the_same(functions: LambdaServer, name: str, path: str) -> None:
    events = MemorySink()
    async with opened_lambda(name, functions, LAMBDA_EXECUTOR_FUNCTION=f"{functions.url}/{path}") as place:
        assert await place.result(place.order(ONE), events) == {"output": 1}

    assert [said.type for said in events.happenings] == [EventType.NODE_STARTED, EventType.NODE_COMPLETED]


async def test_a_function_url_says_only_that_its_function_failed(functions: LambdaServer) -> None:
    async with opened_lambda(
        "lambda_invoke", functions, LAMBDA_EXECUTOR_FUNCTION=f"{functions.url}/url/flo"
    ) as place:  # fmt: skip
        killing = asyncio.create_task(kill_busy(functions, "flo"))
        outcome = await place.run(place.order(ENDLESS))
        await killing

    assert isinstance(outcome, Retry)
    assert "only its log says why" in outcome.reason


@dataclass
class _Broken:
    """A Lambda whose connections break off after some bytes."""

    bytes_first: bytes
    asked: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        writer.write(self.bytes_first)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def broken_lambda(first: bytes) -> AsyncIterator[tuple[_Broken, LambdaServer]]:
    broken = _Broken(first)
    server = await asyncio.start_server(broken.answer, "127.0.0.1", 0)
    async with server:
        yield broken, LambdaServer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = chunk(b'{"say":"alive"}\n')


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("lambda_invoke", b""),
        ("lambda_invoke", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        ("lambda_stream", b""),
        ("lambda_stream", HEAD + b"%x\r\n%b\r\n" % (len(PIECE), PIECE)),
        ("lambda_stream", HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PIECE), PIECE)),
        ("lambda_stream", HEAD + b"%x\r\n%b\r\n" % (len(PIECE), PIECE[:-3] + b"xxx")),
    ],
)
async def test_an_answer_that_breaks_off_is_left_to_the_loan_and_never_asked_for_twice(name: str, first: bytes) -> None:
    async with broken_lambda(first) as (broken, server), opened_lambda(name, server) as place:
        outcome: Outcome | Away = await place.executor.run(place.order(ONE), MemorySink())

    assert isinstance(outcome, Away)
    assert broken.asked == 1
    assert not place.book.settled


async def test_a_function_that_is_given_something_else_says_what_it_is_for(place: LambdaPlace) -> None:
    await place.result(place.order(ONE))
    door = place.executor._known[place.function]  # type: ignore[attr-defined]

    with pytest.raises(FunctionFailed, match=r"NotAnEvent.*LAMBDA_EXECUTOR_FUNCTION"):
        await anext(door.ask(b'{"hello": "world"}', begins=lambda: None))


async def test_a_warm_function_is_used_again(place: LambdaPlace, functions: LambdaServer) -> None:
    await place.result(place.order(ONE))
    before = await started(functions, place.function)

    await place.result(place.order(ONE))

    assert await started(functions, place.function) == before


async def test_what_is_no_answer_of_flo_s_is_said(functions: LambdaServer) -> None:
    said = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"statusCode":200}'
    async with broken_lambda(said) as (_, server), opened_lambda("lambda_invoke", server) as place:
        outcome = await place.run(place.order(ONE))

    assert isinstance(outcome, Retry)
    assert "is it Flo's, of this version?" in outcome.reason
