"""When a failed node is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.flow import RetryPolicy
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from workers.engine.retry import backoff, pause_before_retry

DOUBLING = RetryPolicy(max_attempts=10, delay_ms=500, backoff_multiplier=2, max_delay_ms=3000)


def error(kind: ErrorKind = ErrorKind.USER) -> RunError:
    return RunError(kind=kind, message="no")


@pytest.mark.parametrize(("failures", "pause_ms"), [(1, 500), (2, 1000), (3, 2000), (4, 3000), (9, 3000)])
def test_the_first_pause_is_the_delay_and_each_next_one_longer_up_to_the_limit(failures: int, pause_ms: int) -> None:
    assert pause_before_retry(DOUBLING, error(), failures=failures) == timedelta(milliseconds=pause_ms)


def test_without_a_policy_there_is_no_retry() -> None:
    assert pause_before_retry(None, error(), failures=1) is None


def test_max_attempts_counts_the_first_attempt_too() -> None:
    policy = RetryPolicy(max_attempts=2, delay_ms=0)

    assert pause_before_retry(policy, error(), failures=1) == timedelta(0)
    assert pause_before_retry(policy, error(), failures=2) is None


@pytest.mark.parametrize(
    "kind", [ErrorKind.SYNTAX, ErrorKind.INVALID_INPUT, ErrorKind.FORBIDDEN, ErrorKind.MEMORY_EXCEEDED]
)
def test_what_would_only_happen_again_is_not_retried(kind: ErrorKind) -> None:
    assert pause_before_retry(DOUBLING, error(kind), failures=1) is None


@pytest.mark.parametrize(("retry_on_timeout", "pause"), [(True, timedelta(0)), (False, None)])
def test_a_timeout_is_retried_only_when_the_policy_says_so(retry_on_timeout: bool, pause: timedelta | None) -> None:
    policy = RetryPolicy(max_attempts=2, delay_ms=0, retry_on_timeout=retry_on_timeout)

    assert pause_before_retry(policy, error(ErrorKind.TIMED_OUT), failures=1) == pause


@pytest.mark.parametrize(
    ("retry_on", "details", "kind", "again"),
    [
        ([503], {"status": 503}, ErrorKind.UPSTREAM, True),
        ([503], {"status": 500}, ErrorKind.UPSTREAM, False),
        (["5xx", 429], {"status": 502}, ErrorKind.UPSTREAM, True),
        (["5xx", 429], {"status": 429}, ErrorKind.UPSTREAM, True),
        (["5xx"], {"status": 404}, ErrorKind.UPSTREAM, False),
        (["5xx"], None, ErrorKind.UPSTREAM, False),
        (["upstream_error"], None, ErrorKind.UPSTREAM, True),
        (["upstream_error"], None, ErrorKind.USER, False),
        (["memory_exceeded"], None, ErrorKind.MEMORY_EXCEEDED, True),
        (["timed_out"], None, ErrorKind.TIMED_OUT, True),
    ],
)
def test_a_policy_may_name_the_errors_that_it_retries(
    retry_on: list[object], details: dict[str, JSONValue] | None, kind: ErrorKind, again: bool
) -> None:
    policy = RetryPolicy.model_validate({"delay_ms": 0, "retry_on": retry_on})

    pause = pause_before_retry(policy, RunError(kind=kind, message="no", details=details), failures=1)

    assert (pause is not None) == again


@given(
    policy=st.builds(
        RetryPolicy,
        delay_ms=st.integers(0, 86_400_000),
        backoff_multiplier=st.floats(1, 1000),
        max_delay_ms=st.none() | st.integers(0, 86_400_000),
        jitter=st.floats(0, 1),
    ),
    failures=st.integers(1, 100),
    roll=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_with_jitter_lies_between_the_plain_pause_and_twice_that(
    policy: RetryPolicy, failures: int, roll: float
) -> None:
    plain = backoff(policy, failures=failures)

    assert plain <= backoff(policy, failures=failures, roll=roll) <= 2 * plain
    assert plain <= timedelta(days=1)
