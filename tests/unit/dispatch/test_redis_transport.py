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
    payload = {"body": "", "properties": {"delivery_tag": "1"}, "content-type": "application/json"}
    qos.append(Message(payload, channel=None), "1")

    qos.restore_unacked_once()

    assert list(tmp_path.iterdir()) == []
