"""What becomes of runs over HTTP when something dies, is full, falls silent or lies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from executor_places import KEY, LEASE_LEFT, Place, Program, javascript, opened_http, running_executor

from dispatch.claims import LostClaim
from dispatch.run_tokens import HoldRight, RunRight, Signer
from schemas.app import AppLimits
from schemas.errors import Unavailable
from schemas.outcome import ErrorKind, Retry, Succeeded
from schemas.run import EventType, Happening
from tests.proxies import SilentProxy
from workers.engine.sink import MemorySink
from workers.executors.base import RunOrder
from workers.runner.server.clock import HEADER, Clock, FarClock
from workers.runner.server.words import order_to

FOREVER = {"id": "it", "node_type": "time.delay", "config": {"delay_ms": 600_000}}
QUICK = javascript("export default () => 1")
NOBODY = "http://127.0.0.1:9"


class Started(MemorySink):
    """Wakes whoever waits for the first node to start."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        if happening.type is EventType.NODE_STARTED:
            self.started.set()


async def started(place: Place, order: RunOrder) -> asyncio.Task[Any]:
    """Start a run, and return when its node is under way."""
    events = Started()
    run = asyncio.create_task(place.run(order, events))
    waiting = asyncio.create_task(events.started.wait())
    await asyncio.wait([run, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not run.done(), run.result()
    return run


def long(place: Place, ms: int = 60_000, **given: Any) -> RunOrder:
    """Order a run that goes on until it is stopped, or for as long as is said."""
    wait = f"export default () => new Promise(done => setTimeout(() => done('done'), {ms}))"
    return place.order(javascript(wait, timeout_ms=120_000), **given)


def signed(order: RunOrder, attempt: int | None = None, key: str = KEY) -> dict[str, str]:
    right = RunRight(run_id=order.run_id, app=order.app, attempt=attempt or order.attempt)
    return {"authorization": f"Bearer {Signer(key).run(right, lasts=timedelta(minutes=5))}"}


def body(order: RunOrder, **changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(order_to(order, AppLimits(), hold_s=60))
    return whole | {"confirms": False, "hold_s": None} | changes


async def running(url: str) -> int:
    async with httpx.AsyncClient() as client:
        return int((await client.get(f"{url}/health")).json()["running"])


async def test_the_same_attempt_sent_twice_is_executed_once(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient(timeout=30) as client:
        once = "export default () => new Promise(done => setTimeout(() => done(Math.random()), 500))"
        order = place.order(javascript(once))

        answers = await asyncio.gather(
            *(client.post(f"{program.url}/execute", json=body(order), headers=signed(order)) for _ in range(3))
        )

    outcomes = [answer.json()["outcome"] for answer in answers]
    assert outcomes[0]["is"] == "succeeded"
    assert outcomes == [outcomes[0]] * 3


async def test_a_newer_attempt_ends_the_older_and_the_older_can_not_come_back(program: Program) -> None:
    async with opened_http([program.url]) as place:
        order = long(place)
        older = await started(place, order)

        newer = await started(place, replace(order, attempt=2))

        assert (await older).reason.startswith("attempt 2 has")
        assert await running(program.url) == 1
        with pytest.raises(LostClaim):
            await place.run(order)
        newer.cancel()
        await asyncio.wait([newer])


async def test_an_attempt_that_was_stopped_before_it_came_is_refused(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient() as client:
        order = place.order(QUICK)
        await client.delete(f"{program.url}/execute/{order.run_id}/1", headers=signed(order))

        with pytest.raises(LostClaim):
            await place.run(order)


async def test_a_cancelled_run_is_dead_over_there_when_the_call_returns(program: Program) -> None:
    async with opened_http([program.url]) as place:
        run = await started(place, long(place))

        run.cancel()
        await asyncio.wait([run])

        assert run.cancelled()
        assert await running(program.url) == 0


async def test_an_executor_that_dies_gives_the_run_back(program: Program) -> None:
    async with opened_http([program.url]) as place:
        run = await started(place, long(place))

        program.process.kill()

        outcome = await run
    assert isinstance(outcome, Retry), outcome


async def test_an_executor_that_was_started_anew_gives_the_run_back(tmp_path: Path) -> None:
    mode = {"FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY"}
    with running_executor(tmp_path / "one", **mode) as one, running_executor(tmp_path / "two", **mode) as two:
        async with proxied(one.url) as (proxy, url), opened_http([url]) as place:
            run = await started(place, long(place))
            proxy.target = int(two.url.rsplit(":", 1)[1])
            one.process.kill()

            outcome = await run
    assert isinstance(outcome, Retry)
    assert "started anew" in outcome.reason


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[SilentProxy, str]]:
    """Put a network between worker and executor."""
    proxy = SilentProxy(int(url.rsplit(":", 1)[1]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await proxy.aclose()


async def test_a_stream_that_falls_silent_is_settled_by_asking(program: Program) -> None:
    async with proxied(program.url) as (proxy, url), opened_http([url]) as place:
        events = Started()
        run = asyncio.create_task(place.run(long(place, ms=1_500), events))
        await events.started.wait()

        proxy.hush()

        assert await run == Succeeded(result={"output": "done"})
    assert [said.type for said in events.happenings] == [EventType.NODE_STARTED, EventType.NODE_COMPLETED]


async def test_behind_a_dead_network_a_run_is_given_back_only_when_it_is_over_there(program: Program) -> None:
    lease = timedelta(seconds=4)
    async with proxied(program.url) as (proxy, url), opened_http([url], lease_left=lambda: lease) as place:
        run = await started(place, long(place))

        proxy.hush(also_new=True)
        outcome = await run

        assert isinstance(outcome, Retry)
        assert await running(program.url) == 0


async def test_a_run_whose_worker_says_nothing_more_is_stopped(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient(timeout=30) as client:
        order = long(place)

        answer = await client.post(f"{program.url}/execute", json=body(order, hold_s=0.5), headers=signed(order))

    assert answer.json()["outcome"]["is"] == "retry"


async def test_a_run_goes_on_for_as_long_as_its_worker_holds_it(program: Program) -> None:
    lease = timedelta(seconds=2)
    async with opened_http([program.url], lease_left=lambda: lease) as place:
        assert await place.run(long(place, ms=4_000)) == Succeeded(result={"output": "done"})


async def test_a_worker_that_has_lost_its_lease_loses_the_run(program: Program) -> None:
    left = [LEASE_LEFT / 20]
    async with opened_http([program.url], lease_left=lambda: left[0]) as place:
        run = await started(place, long(place))

        left[0] = timedelta(0)

        assert isinstance(await run, Retry)
        assert await running(program.url) == 0


async def test_an_order_that_a_frozen_executor_finds_too_late_is_not_executed(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient(timeout=30) as client:
        there = FarClock()
        there.learn((await client.get(f"{program.url}/health")).headers[HEADER])
        order = place.order(QUICK)
        sent = body(order, hold_s=1, held_until=there.after(0.2))
        os.kill(program.process.pid, signal.SIGSTOP)
        asking = asyncio.create_task(client.post(f"{program.url}/execute", json=sent, headers=signed(order)))
        await asyncio.sleep(0.5)  # until it is held no more

        os.kill(program.process.pid, signal.SIGCONT)
        answer = await asking

    assert answer.status_code == 409
    assert "comes late" in answer.json()["detail"]


async def test_an_executor_that_was_started_anew_refuses_the_time_of_another_and_shows_its_own(
    program: Program,
) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient(timeout=30) as client:
        order = place.order(QUICK)
        sent = body(order, hold_s=60, held_until=Clock().told())

        refused = await client.post(f"{program.url}/execute", json=sent, headers=signed(order))
        there = FarClock()
        there.learn(refused.headers[HEADER])
        again = body(order, hold_s=60, held_until=there.after(60))
        taken = await client.post(f"{program.url}/execute", json=again, headers=signed(order))

    assert (refused.status_code, taken.status_code) == (412, 200)
    assert "started anew" in refused.json()["detail"]


async def test_a_full_executor_says_so_and_the_run_waits_for_its_turn(program: Program) -> None:
    async with opened_http([program.url]) as place:
        runs = [place.run(long(place, ms=300)) for _ in range(5)]

        assert await asyncio.gather(*runs) == [Succeeded(result={"output": "done"})] * 5


async def test_a_full_executor_answers_503_with_the_time_to_come_back(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient() as client:
        busy = [await started(place, long(place)) for _ in range(2)]
        order = place.order(QUICK)

        answer = await client.post(f"{program.url}/execute", json=body(order), headers=signed(order))

        for run in busy:
            run.cancel()
        await asyncio.wait(busy)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


async def test_runs_are_spread_and_a_dead_executor_is_left_alone(program: Program, tmp_path: Path) -> None:
    with running_executor(tmp_path / "other", FLO_EXECUTION_MODE="SANDBOX_CODE_ONLY") as other:
        async with opened_http([NOBODY, program.url, other.url]) as place:
            runs = [await started(place, long(place)) for _ in range(4)]

            counts = await asyncio.gather(running(program.url), running(other.url))

            for run in runs:
                run.cancel()
            await asyncio.wait(runs)
    assert counts == [2, 2]


async def test_where_no_executor_answers_the_run_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.executors.http.spread.Spread.deadline", lambda self: 0.0)
    async with opened_http([NOBODY]) as place:
        with pytest.raises(Unavailable, match=f"{NOBODY} failed: ConnectError"):
            await place.run(place.order(QUICK))


async def test_a_tenant_can_not_choose_where_workers_send_requests(program: Program) -> None:
    async with opened_http([program.url]) as place:
        error = await place.error(
            place.order(QUICK, backend_config={"executor_url": "http://169.254.169.254/latest/meta-data"})
        )

    assert error.kind is ErrorKind.FORBIDDEN
    assert "executor_urls" in error.message


async def test_an_operator_can_list_executors_for_an_app(program: Program) -> None:
    async with opened_http([NOBODY]) as place:
        place.limits["acme"] = AppLimits(executor_urls=(program.url,))

        order = place.order(QUICK, backend_config={"executor_url": program.url + "/"})

        assert await place.result(order) == {"output": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("nothing", 401),
        ("another key", 401),
        ("another attempt", 403),
        ("another run", 403),
        ("a worker's own", 403),
    ],
)
async def test_only_the_token_of_the_attempt_starts_it(program: Program, headers: str, status: int) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient() as client:
        order = place.order(QUICK)
        held = Signer(KEY).hold(HoldRight(worker="wrk_1"))
        given = {
            "nothing": {},
            "another key": signed(order, key="a key that nobody has, as long as it must be"),
            "another attempt": signed(order, attempt=2),
            "another run": signed(place.order(QUICK)),
            "a worker's own": {"authorization": f"Bearer {held}"},
        }

        answer = await client.post(f"{program.url}/execute", json=body(order), headers=given[headers])

    assert answer.status_code == status
    assert answer.json()["detail"]


async def test_what_is_no_order_is_refused_with_the_reason(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient() as client:
        order = place.order(QUICK)
        answer = await client.post(f"{program.url}/execute", json={"run_id": order.run_id}, headers=signed(order))

    assert answer.status_code == 422
    assert "Field required" in answer.json()["detail"]


async def test_server_sent_events_tell_the_same(program: Program) -> None:
    async with opened_http([program.url]) as place, httpx.AsyncClient(timeout=30) as client:
        order = place.order(QUICK)
        answer = await client.post(f"{program.url}/execute/sse", json=body(order), headers=signed(order))

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in answer.text.splitlines() if line.startswith("event:")] == [
        "event: event", "event: event", "event: done"
    ]  # fmt: skip


async def test_an_executor_that_is_asked_to_stop_lets_runs_finish(program: Program) -> None:
    async with opened_http([program.url]) as place:
        run = await started(place, long(place, ms=1_000))

        program.process.send_signal(signal.SIGTERM)

        assert await run == Succeeded(result={"output": "done"})
        assert await asyncio.to_thread(program.process.wait, 20) == 0


async def test_an_executor_that_is_asked_twice_gives_runs_back(program: Program) -> None:
    async with opened_http([program.url]) as place:
        run = await started(place, long(place))

        program.process.send_signal(signal.SIGTERM)
        await until_closing(program.url)
        program.process.send_signal(signal.SIGTERM)

        outcome = await run
    assert isinstance(outcome, Retry)
    assert outcome.reason == "its executor was stopped"


async def until_closing(url: str) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(20):
        while (await client.get(f"{url}/health")).json()["status"] != "stopping":  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)


def test_an_executor_that_could_tell_nobody_from_anybody_does_not_listen_to_others(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "workers.runner.server", "--host", "0.0.0.0", "--port", "0"]
    repository = Path(__file__).parent.parent.parent.parent
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(repository), "FLO_HOME": str(tmp_path)}

    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 2
    assert "set FLO_URL" in ended.stderr


async def test_an_executor_without_a_key_takes_nothing_from_browsers(tmp_path: Path) -> None:
    open_to_all = {"FLO_EXECUTOR_KEY": "", "FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY"}
    with running_executor(tmp_path / "open", **open_to_all) as program:
        async with opened_http([program.url]) as place, httpx.AsyncClient() as client:
            order = place.order(QUICK)
            page = {"origin": "https://evil.example"}

            refused = await client.post(f"{program.url}/execute", json=body(order), headers=page)
            taken = await client.post(f"{program.url}/execute", json=body(order))

    assert (refused.status_code, taken.status_code) == (403, 200)


async def test_an_executor_that_talks_nonsense_is_not_believed() -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        forged = {"seq": 1, "say": "event", "type": "run_completed", "data": {}, "node_id": None, "time": 0}
        text = json.dumps(forged) + "\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        writer.write((head + text).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    events = MemorySink()
    async with server, opened_http([url]) as place:
        outcome = await place.run(place.order(QUICK), events)

    assert isinstance(outcome, Retry)
    assert "nonsense" in outcome.reason
    assert events.happenings == []
