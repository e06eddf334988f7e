"""Whether a node that failed is tried again, and after which pause. Pure."""

from __future__ import annotations

from datetime import timedelta

from schemas.flow import ErrorMark, RetryPolicy
from schemas.outcome import ErrorKind, RunError

#: Errors that the same node with the same inputs would only repeat.
_FINAL = frozenset(
    {
        ErrorKind.SYNTAX,
        ErrorKind.INVALID_INPUT,
        ErrorKind.FORBIDDEN,
        ErrorKind.MEMORY_EXCEEDED,
        ErrorKind.OUTPUT_EXCEEDED,
        ErrorKind.CANCELLED,
    }
)


def pause_before_retry(
    policy: RetryPolicy | None, error: RunError, *, failures: int, roll: float = 0.0
) -> timedelta | None:
    """Give the pause after the `failures`-th failure, or None when the node has had its chances.

    `roll` is chance, from 0 up to 1; it counts only as far as the policy has jitter.
    """
    if policy is None or failures >= policy.max_attempts or not _worth_it(policy, error):
        return None
    return backoff(policy, failures=failures, roll=roll)


def _worth_it(policy: RetryPolicy, error: RunError) -> bool:
    if policy.retry_on is not None and any(_bears(error, mark) for mark in policy.retry_on):
        return True
    if error.kind is ErrorKind.TIMED_OUT:
        return policy.retry_on_timeout
    return policy.retry_on is None and error.kind not in _FINAL


def _bears(error: RunError, mark: ErrorMark) -> bool:
    """Tell whether an error has this status, a status of this class, or this kind."""
    status = (error.details or {}).get("status")
    if mark in ("4xx", "5xx"):
        return isinstance(status, int) and f"{status // 100}xx" == mark
    return mark in (status, error.kind)


def backoff(policy: RetryPolicy, *, failures: int, roll: float = 0.0) -> timedelta:
    """First `delay_ms`, then times `backoff_multiplier` each time, up to `max_delay_ms`; then the jitter."""
    longest = policy.max_delay_ms if policy.max_delay_ms is not None else MAX_DELAY_MS
    try:
        delay_ms = min(policy.delay_ms * policy.backoff_multiplier ** (failures - 1), longest)
    except OverflowError:
        delay_ms = longest if policy.delay_ms else 0
    return timedelta(milliseconds=delay_ms * (1 + policy.jitter * roll))


#: Longest pause when the policy names none: a day.
MAX_DELAY_MS = 86_400_000
