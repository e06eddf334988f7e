"""What is SQS's own: queues that vanish, poison, FIFO, credentials that may not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import update

from dispatch.queues.redis_queue import envelope
from dispatch.store.runs import runs
from scheduler.reaper import republish_vanished
from scheduler.relay import relay
from schemas.job import Job, JobKind
from tests import servers
from tests.carriers import CREDENTIALS, environment
from tests.integration.carriers.carried import Carrier, dead_bodies, open_carried, until
from tests.integration.workers.worker_process import Lane, WorkerProcess


@pytest.fixture(params=["sqs", "sqs-fifo"])
def carrier(request: pytest.FixtureRequest, home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Carrier:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Carrier(home, database_url, environment(request, request.param))


@pytest.fixture
def sqs(carrier: Carrier) -> Any:
    settings = carrier.settings
    return boto3.client("sqs", region_name=settings.aws_region, endpoint_url=settings.aws_endpoint_url)


def url_of(sqs: Any, carrier: Carrier, queue: str) -> str:
    name = f"{carrier.settings.sqs_queue_prefix}{queue}{'.fifo' if carrier.settings.sqs_fifo else ''}"
    return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])


async def test_a_backlog_of_several_apps_is_worked_off(lane: Lane, worker: WorkerProcess) -> None:
    ids = [await lane.send() for _ in range(50)]

    ends = [await lane.ended(run_id) for run_id in ids]

    assert {(run["status"], run["attempt"]) for run in ends} == {("succeeded", 1)}


async def test_queues_are_made_with_a_queue_for_dead_letters(lane: Lane, carrier: Carrier, sqs: Any) -> None:
    await lane.queue.publish([Job(kind=JobKind.FLOW, run_id="run_a", app="shop", group="gpu")])

    url = url_of(sqs, carrier, "flow-gpu")
    policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    assert "flow-gpu-dead" in policy


async def test_an_unreadable_message_stops_nothing_and_is_kept_with_its_reason(
    lane: Lane, worker: WorkerProcess, carrier: Carrier, sqs: Any
) -> None:
    await lane.ended(await lane.send())
    good = envelope(Job(kind=JobKind.FLOW, run_id="run_x", app="shop"))
    forged = ["not json", good.replace("run_id", "ran_id"), good.replace("flo.flow", "flo.x")]
    fifo = carrier.settings.sqs_fifo
    for number, body in enumerate(forged):
        more = {"MessageGroupId": "shop", "MessageDeduplicationId": f"forged-{number}"} if fifo else {}
        sqs.send_message(QueueUrl=url_of(sqs, carrier, "flow"), MessageBody=body, **more)

    run = await lane.ended(await lane.send())

    kept: dict[str, str] = {}

    async def all_are_kept() -> bool:
        dead = url_of(sqs, carrier, "flow-dead")
        for message in sqs.receive_message(QueueUrl=dead, MessageAttributeNames=["All"]).get("Messages", []):
            kept[message["Body"]] = message["MessageAttributes"]["reason"]["StringValue"]
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
        return set(kept) == set(forged)

    await until(all_are_kept)
    assert run["status"] == "succeeded"
    assert worker.process.poll() is None
    assert all(kept.values())
    assert await dead_bodies(lane) == {body.encode() for body in forged}


async def test_a_server_that_lost_every_queue_loses_no_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with servers.run_sqs() as server:
        given = {**server.environment, "ASYNC_EXECUTION_BACKEND": "sqs"}
        carrier = Carrier(home, f"sqlite:///{home / 'flo.db'}", given)
        async with open_carried(carrier) as lane:
            waiting = [await lane.send() for _ in range(20)]
            await lane.publisher.settle()
            with carrier.worker("--lanes", "webhook") as worker:
                await lane.ended(await lane.send(lane="webhook"))
                server.stop()
                server.start()
                async with lane.store.write() as connection:
                    long_ago = datetime.now(UTC) - timedelta(minutes=1)
                    await connection.execute(update(runs).values(published_at=long_ago))
                again = await lane.send(lane="webhook")
                republished = await republish_vanished(lane.store, lane.queue)
                await relay(lane.store, lane.queue)
                with carrier.worker("--lanes", "flow"):
                    ends = [await lane.ended(run_id) for run_id in (*waiting, again)]
                assert worker.process.poll() is None

    assert republished == 20
    assert {run["status"] for run in ends} == {"succeeded"}
