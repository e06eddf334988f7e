"""The Redis transport's own parts, without a Redis."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from kombu.transport.virtual import Message

from dispatch.queues.redis_transport import JobQoS


class Gone:
    """A channel whose Redis is away."""

    do_restore = True

    def _restore(self, message: Any) -> None:
        raise ConnectionError("Redis is away")


def test_messages_that_can_not_be_given_back_leave_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    qos = JobQoS(Gone())
    deliver(qos, "1")

    qos.restore_unacked_once()

    assert list(tmp_path.iterdir()) == []


def test_more_is_taken_once_half_of_what_may_wait_is_gone() -> None:
    qos = JobQoS(Gone(), prefetch_count=4)
    deliver(qos, "1", "2", "3", "4")

    qos.ack("1")
    assert not qos.can_consume()
    qos.ack("2")
    assert qos.can_consume()
    qos.restore_at_shutdown = False


def deliver(qos: JobQoS, *tags: str) -> None:
    for tag in tags:
        payload = {"body": "", "properties": {"delivery_tag": tag}, "content-type": "application/json"}
        qos.append(Message(payload, channel=None), tag)
