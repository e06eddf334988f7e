from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.queues.envelope import Unreadable, open_envelope
from dispatch.queues.redis_queue import envelope
from schemas.job import Job, JobKind

JOB = Job(kind=JobKind.WEBHOOK, run_id="run_x", app="shop", attempt=3, priority=1, group="gpu")


def test_what_was_sealed_is_read_again() -> None:
    assert open_envelope(envelope(JOB)) == JOB


def test_bytes_are_read_like_text() -> None:
    assert open_envelope(envelope(JOB).encode()) == JOB


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "[]",
        '{"body": 1}',
        envelope(JOB).replace("run_id", "ran_id"),
        envelope(JOB).replace("flo.webhook", "flo.flow"),
        b"\x80\x04\x95pickle",
    ],
)
def test_anything_else_is_unreadable_with_a_reason(message: str | bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        open_envelope(message)

    assert str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(message: bytes) -> None:
    with pytest.raises(Unreadable):
        open_envelope(message)
