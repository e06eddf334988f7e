from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from dispatch.queues.sqs_client import SqsClient
from dispatch.queues.sqs_queue import SqsQueue
from schemas.errors import Unavailable
from schemas.job import Job, JobKind
from schemas.settings import Settings, load_settings


class Sqs:
    """SQS as boto3 has it: answers each batch with what a test wants refused, and remembers what was asked."""

    def __init__(self, *refusals: list[dict[str, Any]] | Exception) -> None:
        self.refusals = list(refusals)
        self.sent: list[list[str]] = []

    def get_queue_url(self, QueueName: str) -> dict[str, str]:
        return {"QueueUrl": f"http://sqs/1/{QueueName}"}

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.sent.append([entry["Id"] for entry in Entries])
        refusal = self.refusals.pop(0) if self.refusals else []
        if isinstance(refusal, Exception):
            raise refusal
        return {"Failed": refusal}

    def close(self) -> None:
        pass


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return load_settings({"ASYNC_EXECUTION_BACKEND": "sqs", "AWS_REGION": "eu-west-1"})


def queue_on(sqs: Sqs, settings: Settings) -> SqsQueue:
    queue = SqsQueue(settings)
    queue._client._sqs = sqs
    return queue


def jobs(count: int) -> list[Job]:
    return [Job(kind=JobKind.FLOW, run_id=f"run_{number}", app="shop") for number in range(count)]


async def test_jobs_go_in_batches_of_ten(settings: Settings) -> None:
    sqs = Sqs()

    await queue_on(sqs, settings).publish(jobs(23))

    assert sorted(len(batch) for batch in sqs.sent) == [3, 10, 10]


async def test_what_sqs_could_not_take_is_sent_again_alone(settings: Settings) -> None:
    sqs = Sqs([{"Id": "1", "SenderFault": False, "Code": "InternalError"}])

    await queue_on(sqs, settings).publish(jobs(3))

    assert sqs.sent == [["0", "1", "2"], ["1"]]


async def test_what_sqs_refuses_for_good_is_unavailable_with_its_reason(settings: Settings) -> None:
    sqs = Sqs([{"Id": "1", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "bad text"}])

    with pytest.raises(Unavailable, match=r"took 2 of 3 messages for 'flow' \(bad text\)"):
        await queue_on(sqs, settings).publish(jobs(3))

    assert len(sqs.sent) == 1


async def test_a_missing_permission_is_named_with_its_queue(settings: Settings) -> None:
    refused = ClientError({"Error": {"Code": "AccessDenied", "Message": "not you"}}, "SendMessageBatch")

    with pytest.raises(Unavailable, match=r"SendMessageBatch on queue 'flo-flow' .* permission sqs:SendMessage$"):
        await queue_on(Sqs(refused), settings).publish(jobs(1))


def test_a_group_has_a_queue_whose_name_sqs_takes(settings: Settings) -> None:
    plain = SqsClient(settings, threads=1)
    fifo = SqsClient(settings.model_copy(update={"sqs_fifo": True}), threads=1)

    assert (plain.name_of("flow.gpu"), plain.name_of("flow", dead=True)) == ("flo-flow-gpu", "flo-flow-dead")
    assert fifo.name_of("flow") == "flo-flow.fifo"
