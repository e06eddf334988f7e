"""Which runs of an app may start now, as its limits stand. Pure: `store/turns.py` reads, `store/line.py` writes.

Runs start in the order of their places: priority, then age. A run that waits for its key's turn is stepped over by
those behind it; one that waits for the app itself is stepped over by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import merge
from typing import TypeAlias

from schemas.app import AppLimits, RateLimit

#: Priority, time of acceptance, id.
Place: TypeAlias = tuple[int, datetime, str]

#: Runs that are started or called in one decision. Those behind them follow, as each start decides anew.
MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A queued run, as far as its turn goes."""

    run_id: str
    key: str | None
    place: Place
    #: A worker holds its message and wants to start it.
    asks: bool
    #: Its message is on its way already.
    called: bool


@dataclass(frozen=True, slots=True)
class Decision:
    #: Runs that start now.
    admitted: list[str] = field(default_factory=list)
    #: Runs that asked in vain, and why.
    blocked: dict[str, str] = field(default_factory=dict)
    #: Runs whose turn it is, or will be at this time, and whose worker must be told.
    called: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate limit and the newest starts under it, by number."""

    limit: RateLimit
    #: The number that the next start gets.
    following: int
    starts: Mapping[int, datetime]

    def opens_at(self, more: int, now: datetime) -> datetime:
        """Tell from when on a run may start, after `more` others that start now."""
        window = timedelta(seconds=self.limit.per_seconds)
        number = self.following + more - self.limit.runs
        if number >= self.following:
            return now + window
        at = self.starts.get(number)
        return now if at is None else max(now, at + window)


def decide(
    line: Iterable[Waiting],
    asking: Collection[Waiting],
    *,
    limits: AppLimits,
    running: int,
    next_of_key: Callable[[str], Collection[str]],
    rate: Rate | None,
    now: datetime,
) -> Decision:
    """Go along those who wait and those who ask, both in order of their places, while there is room.

    `running` counts the app's runs that are under way; `next_of_key` names the runs whose turn it is under a key.
    """
    decision = Decision()
    room, why = MOST, "runs that were accepted before it"
    if limits.max_concurrency is not None and limits.max_concurrency - running < MOST:
        room, why = limits.max_concurrency - running, f"one of the app's {limits.max_concurrency} places"
    starting = 0
    for waiting in merge(line, asking, key=_place) if room > 0 else ():
        if waiting.key is not None and waiting.run_id not in next_of_key(waiting.key):
            if waiting.asks:
                decision.blocked[waiting.run_id] = f"its turn under the concurrency_key {waiting.key!r}"
            continue
        opens_at = now if rate is None else rate.opens_at(starting, now)
        if opens_at > now:
            why = _of_rate(limits.rate_limit)
            if waiting.asks or not waiting.called:
                decision.called[waiting.run_id] = opens_at
            break
        starting += 1
        if waiting.asks:
            decision.admitted.append(waiting.run_id)
        elif not waiting.called:
            decision.called[waiting.run_id] = now
        if starting == room:
            break
    decided = {*decision.admitted, *decision.blocked}
    decision.blocked.update((one.run_id, why) for one in asking if one.run_id not in decided)
    return decision


def _of_rate(limit: RateLimit | None) -> str:
    return "the app's rate limit" + (f" ({limit.runs} starts in {limit.per_seconds:g} s)" if limit else "")


def _place(waiting: Waiting) -> Place:
    return waiting.place
