"""What every executor does alike: result, events, errors and limits are the same wherever a run executes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from executor_places import EXECUTORS, Place, javascript, opened_executor, running_executor, told
from kubernetes_place import opened_kubernetes
from lambda_places import FUNCTIONS, opened_lambda

from dispatch.claims import LostClaim
from schemas.outcome import ErrorKind, Succeeded
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode
from workers.engine.sink import MemorySink

pytestmark = pytest.mark.timeout(180)

FOREVER = {"id": "it", "node_type": "time.delay", "config": {"delay_ms": 3_600_000}}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The executors that are programs of their own, by name."""
    with running_executor(tmp_path_factory.mktemp("executor")) as http:
        yield {"http": http.url}


@pytest.fixture(params=EXECUTORS)
async def place(request: pytest.FixtureRequest, tmp_path: Path, programs: dict[str, str]) -> AsyncIterator[Place]:
    if request.param == "docker":
        programs = request.getfixturevalue("docker_server").environment
    if request.param in FUNCTIONS:
        async with opened_lambda(request.param, request.getfixturevalue("lambda_server")) as opened:
            yield opened
        return
    if request.param == "kubernetes_job":
        async with opened_kubernetes(tmp_path, request.getfixturevalue("kubernetes_cluster")) as opened:
            yield opened
        return
    async with opened_executor(request.param, tmp_path, programs) as opened:
        yield opened


class Listening(MemorySink):
    """Wakes whoever waits for something to happen, and notes when it was asked to be durable."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed_at: list[int] = []
        self._seen: dict[EventType, asyncio.Event] = {}

    def at(self, type_: EventType) -> asyncio.Event:
        return self._seen.setdefault(type_, asyncio.Event())

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        self.at(happening.type).set()

    async def flush(self) -> None:
        self.flushed_at.append(len(self.happenings))


async def test_a_run_gives_its_result(place: Place) -> None:
    order = place.order(javascript("export default ({name}) => `hello ${name}`"), payload={"name": "Ada"})

    assert await place.result(order) == {"output": "hello Ada"}


async def test_large_integers_come_through_exactly(place: Place) -> None:
    events = MemorySink()
    nodes = [
        {"id": "one", "node_type": "transform.map", "config": {"map": {"sum": "payload.n"}}},
        {"id": "two", "node_type": "code.python", "config": {"code": "def main(n):\n    return [n * 10, -(2**64)]"}},
    ]
    wire = {"from_node": "one", "from_port": "sum", "to_node": "two", "to_port": "n"}

    result = await place.result(place.order(*nodes, connections=[wire], payload={"n": 10**20}), events)

    assert result == {"output": [10**21, -(2**64)]}
    assert {type(number) for number in result["output"]} == {int}
    told_outputs = [said.data["outputs"] for said in events.happenings if said.type is EventType.NODE_COMPLETED]
    assert told_outputs[0]["sum"] == 10**20


async def test_half_a_surrogate_pair_becomes_a_replacement(place: Place) -> None:
    nodes = [
        javascript("export default () => 'cut \\ud83d'", "one"),
        {"id": "two", "node_type": "code.python", "config": {"code": "def main(it):\n    return it + chr(0xd83d)"}},
    ]
    wire = {"from_node": "one", "from_port": "output", "to_node": "two", "to_port": "it"}

    assert await place.result(place.order(*nodes, connections=[wire])) == {"output": "cut \ufffd\ufffd"}


async def test_events_come_in_order(place: Place) -> None:
    events = MemorySink()
    nodes = [javascript("export default () => 1", "one"), javascript("export default ({it}) => it + 1", "two")]
    wire = {"from_node": "one", "from_port": "output", "to_node": "two", "to_port": "it"}

    await place.result(place.order(*nodes, connections=[wire]), events)

    assert told(events) == [
        (EventType.NODE_STARTED, "one"),
        (EventType.NODE_COMPLETED, "one"),
        (EventType.NODE_STARTED, "two"),
        (EventType.NODE_COMPLETED, "two"),
    ]


async def test_what_code_logs_is_told(place: Place) -> None:
    events = MemorySink()

    await place.result(place.order(javascript("export default () => { console.log('a word'); return 1 }")), events)

    logs = [said.data["message"] for said in events.happenings if said.type is EventType.LOG]
    assert logs == ["a word"]


async def test_an_error_of_the_flow_names_its_node(place: Place) -> None:
    error = await place.error(place.order(javascript("export default () => { throw new Error('no luck') }")))

    assert (error.kind, error.node_id) == (ErrorKind.USER, "it")
    assert "no luck" in error.message


async def test_code_that_takes_too_long_is_ended(place: Place) -> None:
    error = await place.error(place.order(javascript("export default () => { for (;;); }", timeout_ms=300)))

    assert error.kind is ErrorKind.TIMED_OUT


async def test_a_flow_that_takes_too_long_is_ended(place: Place) -> None:
    flow = place.order(
        javascript("export default () => new Promise(() => setInterval(() => {}, 1000))", timeout_ms=60_000),
        settings={"max_execution_time_ms": 500},
    )

    assert (await place.error(flow)).kind is ErrorKind.TIMED_OUT


async def test_code_that_wants_too_much_memory_is_ended(place: Place) -> None:
    eat = "export default () => { const all = []; for (;;) all.push(new Array(1e5).fill('x' + all.length)); }"

    error = await place.error(place.order(javascript(eat, memory_mb=32, timeout_ms=30_000)))

    assert error.kind is ErrorKind.MEMORY_EXCEEDED


async def test_code_that_gives_too_much_is_ended(place: Place) -> None:
    error = await place.error(
        place.order(javascript("export default () => 'x'.repeat(100_000_000)", timeout_ms=30_000, memory_mb=512))
    )

    assert error.kind is ErrorKind.OUTPUT_EXCEEDED


async def test_a_large_result_comes_whole(place: Place) -> None:
    result = await place.result(
        place.order(javascript("export default () => 'x'.repeat(3_000_000)", max_output_bytes=4_000_000))
    )

    assert result == {"output": "x" * 3_000_000}


async def test_a_crash_ends_its_own_run_only(place: Place) -> None:
    crash = {"id": "it", "node_type": "shell.exec", "config": {"command": "kill -9 -1; kill -9 $$"}}

    # Where a run is alone with its engine behind one wall, it takes that along.
    assert (await place.error(place.order(crash))).kind in {ErrorKind.USER, ErrorKind.KILLED}
    assert await place.result(place.order(javascript("export default () => 1"))) == {"output": 1}


async def test_a_cancelled_run_is_over_when_the_call_is(place: Place) -> None:
    events = Listening()
    run = asyncio.create_task(place.run(place.order(FOREVER), events))
    await events.at(EventType.NODE_STARTED).wait()

    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    told_before = len(events.happenings)

    assert await place.result(place.order(javascript("export default () => 1"))) == {"output": 1}
    assert len(events.happenings) == told_before


async def test_what_earlier_attempts_did_is_not_done_again(place: Place) -> None:
    nodes = [javascript("export default () => 'anew'", "one"), javascript("export default ({it}) => it", "two")]
    wire = {"from_node": "one", "from_port": "output", "to_node": "two", "to_port": "it"}
    past = [Happening(EventType.NODE_COMPLETED, {"outputs": {"output": "kept"}, "attempt": 1}, "one")]
    events = MemorySink()

    result = await place.result(place.order(*nodes, connections=[wire], past=past, attempt=2), events)

    assert result == {"output": "kept"}
    assert (EventType.NODE_STARTED, "one") not in told(events)


async def test_effects_are_durable_before_what_depends_on_them_starts(place: Place) -> None:
    effect = {"id": "effect", "node_type": "shell.exec", "config": {"command": "echo done"}}
    wire = {"from_node": "effect", "from_port": "stdout", "to_node": "after", "to_port": "it"}
    events = Listening()

    await place.result(
        place.order(effect, javascript("export default ({it}) => it", "after"), connections=[wire]), events
    )

    said = told(events)
    completed, started = said.index((EventType.NODE_COMPLETED, "effect")), said.index((EventType.NODE_STARTED, "after"))
    assert [at for at in events.flushed_at if completed < at <= started]


async def test_a_run_that_is_no_longer_ours_is_stopped(place: Place) -> None:
    class Fenced(Listening):
        async def flush(self) -> None:
            raise LostClaim("run")

        def emit(self, happening: Happening) -> None:
            super().emit(happening)
            if happening.type is EventType.LOG:
                raise LostClaim("run")

    talk = javascript("export default () => { console.log('a word'); return new Promise(() => {}) }", timeout_ms=60_000)

    with pytest.raises(LostClaim):
        await place.run(place.order(talk), Fenced())


async def test_many_runs_at_once_keep_apart(place: Place) -> None:
    orders = [place.order(javascript("export default ({n}) => n"), payload={"n": n}) for n in range(12)]

    outcomes = await asyncio.gather(*(place.run(order) for order in orders))

    assert outcomes == [Succeeded(result={"output": n}) for n in range(12)]


async def test_an_app_is_held_to_its_own_limits(place: Place) -> None:
    weak = {"execution_mode": str(ExecutionMode.UNSANDBOXED)}

    error = await place.error(place.order(javascript("export default () => 1"), backend_config=weak))

    assert error.kind is ErrorKind.FORBIDDEN


async def test_a_new_attempt_at_a_run_gives_the_same_result(place: Place) -> None:
    order = place.order(javascript("export default () => 1"))

    assert await place.run(order) == await place.run(replace(order, attempt=2))
