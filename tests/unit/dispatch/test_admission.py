from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dispatch.admission import Decision, Rate, Waiting, decide
from schemas.app import AppLimits, RateLimit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def waiting(name: str, *, key: str | None = None, priority: int = 5, called: bool = False) -> Waiting:
    return Waiting(run_id=name, key=key, place=(priority, NOW, name), asks=False, called=called)


def asking(name: str, *, key: str | None = None, priority: int = 5) -> Waiting:
    return Waiting(run_id=name, key=key, place=(priority, NOW, name), asks=True, called=False)


def decided(
    line: list[Waiting],
    asked: list[Waiting],
    *,
    running: int = 0,
    turns: dict[str, list[str]] | None = None,
    rate: Rate | None = None,
    **limits: Any,
) -> Decision:
    return decide(
        line,
        asked,
        limits=AppLimits(**limits),
        running=running,
        next_of_key=lambda key: (turns or {}).get(key, []),
        rate=rate,
        now=NOW,
    )


def test_as_many_start_as_there_are_places() -> None:
    decision = decided([], [asking("a"), asking("b"), asking("c")], running=1, max_concurrency=3)

    assert decision.admitted == ["a", "b"]
    assert list(decision.blocked) == ["c"]


def test_who_waits_goes_before_who_has_just_come() -> None:
    decision = decided([waiting("a")], [asking("b")], max_concurrency=1)

    assert decision.called == {"a": NOW}
    assert list(decision.blocked) == ["b"]


def test_an_urgent_run_goes_before_those_who_wait() -> None:
    decision = decided([waiting("a")], [asking("b", priority=0)], max_concurrency=1)

    assert decision.admitted == ["b"]
    assert decision.called == {}


def test_who_was_called_keeps_the_place_and_is_not_called_again() -> None:
    decision = decided([waiting("a", called=True), waiting("b"), waiting("c")], [], max_concurrency=2)

    assert decision.called == {"b": NOW}


def test_a_run_whose_key_is_busy_is_stepped_over() -> None:
    decision = decided([waiting("a", key="k")], [asking("b")], max_concurrency=1)

    assert decision.admitted == ["b"]
    assert decision.called == {}


def test_a_run_whose_key_is_busy_says_so() -> None:
    decision = decided([], [asking("b", key="k")], turns={"k": ["a"]})

    assert decision.blocked == {"b": "its turn under the concurrency_key 'k'"}


def test_a_full_window_calls_the_first_when_it_opens() -> None:
    limit = RateLimit(runs=2, per_seconds=10)
    rate = Rate(limit=limit, following=3, starts={1: NOW - 8 * SECOND, 2: NOW - SECOND})

    decision = decided([], [asking("a"), asking("b")], rate=rate, rate_limit=limit)

    assert decision.admitted == []
    assert decision.called == {"a": NOW + 2 * SECOND}
    assert set(decision.blocked) == {"a", "b"}


def test_starts_decided_together_count_against_each_other() -> None:
    limit = RateLimit(runs=2, per_seconds=10)
    rate = Rate(limit=limit, following=1, starts={})

    decision = decided([], [asking("a"), asking("b"), asking("c")], rate=rate, rate_limit=limit)

    assert decision.admitted == ["a", "b"]
    assert decision.called == {"c": NOW + 10 * SECOND}
