"""When a schedule is due: computed purely, from an expression, a time zone and the moment to start from.

Clock changes follow Debian's cron. A job at a fixed hour and minute runs once on that day: right after the gap when
the clock jumps over it, the first time when the clock shows it twice. A job with `*` in its hour or minute follows
the clock as people see it. cronsim does the calendar; it is given plain wall-clock times only, as its own handling of
zones loses times where a change is no whole hour (Lord Howe shifts by 30 minutes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile
from typing import TypeAlias
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from schemas.errors import Invalid, Problem
from schemas.wording import did_you_mean, listed, short

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)

#: A due time this late is still on time: longer than a restart of the scheduler takes.
GRACE = timedelta(minutes=1)
#: Most missed times that `catch_up: "all"` makes up for; the newest are kept.
CATCH_UP_CAP = 1000

LONGEST_INTERVAL = timedelta(days=366)

_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day-of-month", "1-31, L (the last day) or LW (the last weekday)"),
    ("month", "1-12 or JAN-DEC"),
    ("day-of-week", "0-7 or SUN-SAT (0 and 7 are Sunday), MON#2 (the second Monday), 5L (the last Friday)"),
)
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"w": timedelta(weeks=1), "d": _DAY, "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": _SECOND}


class CatchUp(StrEnum):
    """What becomes of the times that passed while no scheduler was running."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class Overlap(StrEnum):
    """What a due time does while a run of the same event is not over."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel_previous"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression of five fields (or six, seconds first) as the clocks of a zone show it."""

    expression: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """Tell the first due time later than `moment`, in UTC; None when there is none within 50 years."""
        moment = moment.astimezone(UTC)
        minute, hour = self.expression.split()[-5:-3]
        if minute.startswith("*") or hour.startswith("*"):
            return self._after_by_the_clock(moment)
        return self._after_once_a_day(moment)

    def _after_once_a_day(self, moment: datetime) -> datetime | None:
        wall: datetime | None = moment.astimezone(self.zone).replace(tzinfo=None)
        while wall is not None:
            wall = self._next_wall(wall)
            if wall is not None and (instant := self._instant_of(wall)) > moment:
                return instant
        return None

    def _instant_of(self, wall: datetime) -> datetime:
        early, late = (wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (1, 0))
        if late <= early:  # an ordinary time, or the first of two that look alike
            return late
        return self._change_between(early, late, self._offset(early)) or late  # in a gap: right after it

    def _after_by_the_clock(self, moment: datetime) -> datetime | None:
        """Walk through stretches of time in which the zone keeps its offset from UTC."""
        offset = self._offset(moment)
        while True:
            wall = self._next_wall((moment + offset).replace(tzinfo=None))
            if wall is None:
                return None
            guess = wall.replace(tzinfo=UTC) - offset
            end = min(guess, moment + _DAY)
            change = self._change_between(moment, end, offset)
            if change is not None:
                offset, moment = self._offset(change), change - _SECOND
            elif guess == end:
                return guess
            else:
                # No clock time before `wall` matches, whatever the offset: go on a day before it.
                moment = max(end, guess - _DAY)
                offset = self._offset(moment)

    def _change_between(self, start: datetime, end: datetime, offset: timedelta) -> datetime | None:
        """Find the first second in (start, end] at which the zone's offset is no longer `offset`."""
        if self._offset(end) == offset:
            return None
        low, high = int(start.timestamp()), int(end.timestamp())
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(datetime.fromtimestamp(middle, UTC)) == offset:
                low = middle
            else:
                high = middle
        return datetime.fromtimestamp(high, UTC)

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self.zone).utcoffset() or timedelta(0)

    def _next_wall(self, wall: datetime) -> datetime | None:
        try:
            found: datetime = next(CronSim(self.expression, wall))
        except (StopIteration, OverflowError):
            return None
        return found


@dataclass(frozen=True, slots=True)
class Every:
    """A true interval: every so often since `anchor`, whatever the clocks show."""

    interval: timedelta
    anchor: datetime

    def after(self, moment: datetime) -> datetime | None:
        """Tell the first due time later than `moment`; the first of all is one interval after the anchor."""
        passed = max(0, (moment - self.anchor) // self.interval)
        return (self.anchor + (passed + 1) * self.interval).astimezone(UTC)


Schedule: TypeAlias = Cron | Every


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a schedule now: the times to fire for, oldest first, and when it is due next."""

    fire: tuple[datetime, ...]
    next_at: datetime | None
    cancel_previous: bool = False


def plan(
    schedule: Schedule,
    *,
    due_at: datetime,
    now: datetime,
    catch_up: CatchUp = CatchUp.NONE,
    overlap: Overlap = Overlap.ALLOW,
    live: bool = False,
) -> Plan:
    """Decide about a schedule that has been due since `due_at`; `live`: a run of its own is not over yet.

    Of several due times, catch-up `none` fires for the newest, and only if it is not older than GRACE; `latest` for
    the newest, however old; `all` for every one, the newest CATCH_UP_CAP at most. Overlap `skip` gives up what is due
    while a run is live; `queue` keeps it due until that run is over (the newest time, or with `all` one by one);
    `cancel_previous` stops that run.
    """
    every_one = catch_up is CatchUp.ALL
    times = newest_due(schedule, due_at=due_at, now=now, most=CATCH_UP_CAP if every_one else 1)
    following = schedule.after(now)
    if overlap is Overlap.QUEUE:
        if live:
            return Plan((), due_at)
        # Waiting for the run before is no lateness: the newest time counts, however old.
        return Plan(times[:1], times[1] if len(times) > 1 else following)
    if catch_up is CatchUp.NONE and times and now - times[-1] > GRACE:
        times = ()
    if overlap is Overlap.SKIP:
        return Plan(() if live else times[-1:], following)
    if overlap is Overlap.CANCEL_PREVIOUS:
        return Plan(times[-1:], following, cancel_previous=live and bool(times))
    return Plan(times, following)


def newest_due(schedule: Schedule, *, due_at: datetime, now: datetime, most: int) -> tuple[datetime, ...]:
    """List the newest due times from `due_at` to `now`, both included, oldest first."""
    window = timedelta(hours=1)
    while True:
        start = max(due_at, now - window)
        times = tuple(takewhile(lambda time: time <= now, upcoming(schedule, start - _INSTANT)))
        if len(times) >= most or start == due_at:
            return times[-most:]
        window *= 4


def upcoming(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the due times later than `after`, one by one."""
    moment = schedule.after(after)
    while moment is not None:
        yield moment
        moment = schedule.after(moment)


def next_times(schedule: Schedule, after: datetime, *, count: int) -> list[datetime]:
    """List the next `count` due times."""
    return list(islice(upcoming(schedule, after), count))


def read_schedule(*, cron: str | None, every: str | None, timezone: str | None, anchor: datetime) -> Schedule:
    """Read a schedule's config. Raises Invalid with every mistake in it."""
    problems: list[Problem] = []
    zone = _read_zone(timezone, problems)
    schedule: Schedule | None = None
    if (cron is None) == (every is None):
        problems.append(
            Problem(
                path="config",
                message='a schedule has either "cron" or "every"' + ("; given both" if cron is not None else ""),
                fix='e.g. {"cron": "*/5 * * * *"} or {"every": "11m"}',
            )
        )
    elif cron is not None:
        expression = _read_expression(cron, problems)
        if expression is not None:
            schedule = Cron(expression, zone)
            if not problems and schedule.after(anchor) is None:
                problems.append(
                    Problem(path="config.cron", message=f'cron "{cron}" is never due: no such day in 50 years')
                )
    elif every is not None:
        interval = _read_interval(every, problems)
        schedule = None if interval is None else Every(interval, anchor)
    if problems or schedule is None:
        raise Invalid(problems, what="schedule")
    return schedule


def _read_zone(name: str | None, problems: list[Problem]) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones

        problems.append(
            Problem(
                path="config.timezone",
                message=f"no time zone is called {short(name)}; allowed: names of the IANA database (Europe/Berlin)",
                fix=did_you_mean(name or "", sorted(available_timezones())),
            )
        )
        return ZoneInfo("UTC")


def _read_expression(given: str, problems: list[Problem]) -> str | None:
    text = _ALIASES.get(given.strip().lower(), given).strip()

    def wrong(message: str, fix: str = "") -> None:
        problems.append(Problem(path="config.cron", message=f'cron "{short(given)[1:-1]}": {message}', fix=fix))

    if text.startswith("@"):
        wrong(f"unknown alias; allowed: {listed(_ALIASES)}", did_you_mean(text, _ALIASES))
        return None
    parts = text.split()
    if len(parts) not in (5, 6):
        wrong(
            f"{len(parts)} fields; a cron expression has 5 (minute hour day-of-month month day-of-week), or 6 with "
            "seconds first",
            'e.g. "*/5 * * * *" for every five minutes',
        )
        return None
    names = _FIELDS if len(parts) == 5 else (("second", "0-59"), *_FIELDS)
    before = len(problems)
    for index, ((name, allowed), part) in enumerate(zip(names, parts, strict=True)):
        alone = ["0" if field in ("second", "minute", "hour") else "*" for field, _ in names]
        alone[index] = part
        if not _is_readable(" ".join(alone)):
            wrong(f'{name} is "{part[:40]}"; allowed: *, {allowed}; of these lists (1,2), ranges (1-5), steps (*/5)')
    if len(problems) == before and not _is_readable(text):
        wrong("is never due: none of its months has such a day")
    return " ".join(parts) if len(problems) == before else None


def _is_readable(expression: str) -> bool:
    try:
        CronSim(expression, datetime(2000, 1, 1))
    except (CronSimError, ValueError, IndexError):
        return False
    return True


def _read_interval(given: str, problems: list[Problem]) -> timedelta | None:
    parts = re.findall(r"(\d{1,9})([wdhms])", given)
    interval = sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta(0))
    if "".join(number + unit for number, unit in parts) != given or not parts:
        message = f'every is "{short(given)[1:-1]}"; allowed: whole numbers of w, d, h, m, s'
        problems.append(Problem(path="config.every", message=message, fix='e.g. "11m", "90s" or "1h30m"'))
        return None
    if not _SECOND <= interval <= LONGEST_INTERVAL:
        message = f'every is "{given}"; allowed: from 1s to {LONGEST_INTERVAL.days}d'
        problems.append(Problem(path="config.every", message=message))
        return None
    return interval
