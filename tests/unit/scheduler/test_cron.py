"""Due times: computed purely, checked against a minute-by-minute walk of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.cron import (
    CATCH_UP_CAP,
    GRACE,
    CatchUp,
    Cron,
    Every,
    Overlap,
    next_times,
    plan,
    read_schedule,
    upcoming,
)
from schemas.errors import Invalid

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
START = datetime(2026, 1, 1, tzinfo=UTC)

#: Two days around each change of clocks in 2026, and one quiet day.
CHANGES = [
    datetime(2026, 3, 7, 12, tzinfo=UTC),
    datetime(2026, 3, 28, 12, tzinfo=UTC),
    datetime(2026, 4, 4, 6, tzinfo=UTC),
    datetime(2026, 10, 3, 6, tzinfo=UTC),
    datetime(2026, 10, 24, 12, tzinfo=UTC),
    datetime(2026, 10, 31, 12, tzinfo=UTC),
    datetime(2026, 6, 1, tzinfo=UTC),
]

minutes = st.sampled_from(
    [("*", range(60)), ("0", [0]), ("45", [45]), ("*/15", range(0, 60, 15)), ("10-20", range(10, 21))]
)
hours = st.sampled_from([("*", range(24)), ("*/2", range(0, 24, 2)), ("2", [2]), ("1-3", [1, 2, 3])])
zones = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, ZoneInfo("UTC"), ZoneInfo("Asia/Kolkata")])


def walk(start: datetime, end: datetime, zone: ZoneInfo, minute: object, hour: object) -> list[datetime]:
    """List the minutes whose clock time matches, by looking at every one."""
    count = int((end - start) / timedelta(minutes=1))
    moments = [start + timedelta(minutes=step) for step in range(1, count + 1)]
    clocks = [(moment, moment.astimezone(zone)) for moment in moments]
    return [moment for moment, clock in clocks if clock.minute in minute and clock.hour in hour]  # type: ignore[operator]


def due(schedule: Cron | Every, start: datetime, end: datetime) -> list[datetime]:
    return list(takewhile(lambda moment: moment <= end, upcoming(schedule, start)))


def local(moments: list[datetime], zone: ZoneInfo) -> list[str]:
    return [moment.astimezone(zone).strftime("%d %H:%M %z") for moment in moments]


@given(start=st.sampled_from(CHANGES), zone=zones, minute=minutes, hour=hours)
def test_a_job_with_a_star_follows_the_clock_through_every_change(start, zone, minute, hour):
    expression = f"{minute[0]} {hour[0]} * * *"
    fixed = not minute[0].startswith("*") and not hour[0].startswith("*")
    schedule = Cron(expression if not fixed else f"*/1 {hour[0]} * * *", zone)
    end = start + timedelta(days=2)

    expected = walk(start, end, zone, range(60) if fixed else minute[1], hour[1])

    assert due(schedule, start, end) == expected


@given(
    start=st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    zone=zones,
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
)
def test_a_job_at_a_fixed_time_is_due_once_on_every_day(start, zone, minute, hour):
    times = next_times(Cron(f"{minute} {hour} * * *", zone), start, count=10)

    days = [moment.astimezone(zone).date() for moment in times]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


@given(
    start=st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    zone=zones,
    expression=st.sampled_from(["*/11 * * * *", "0,30 1,2,3 * * *", "0 0 29 2 *", "5 4 * * SUN", "*/7 * * * * *"]),
)
def test_due_times_only_ever_go_forward(start, zone, expression):
    times = next_times(Cron(expression, zone), start, count=8)

    assert times[0] > start
    assert all(earlier < later for earlier, later in pairwise(times))


@given(
    anchor=st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),
    seconds=st.integers(1, 100_000),
    passed=st.integers(0, 10_000_000),
)
def test_an_interval_is_the_same_between_all_due_times(anchor, seconds, passed):
    interval = timedelta(seconds=seconds)
    now = anchor + timedelta(seconds=passed)

    times = next_times(Every(interval, anchor), now, count=5)

    assert now < times[0] <= now + interval
    assert all(later - earlier == interval for earlier, later in pairwise(times))
    assert (times[0] - anchor) % interval == timedelta(0)


def test_every_eleven_minutes_never_fires_twice_around_the_full_hour():
    schedule = read_schedule(cron=None, every="11m", timezone=None, anchor=START)

    times = due(schedule, START + timedelta(minutes=50), START + timedelta(minutes=70))

    assert times == [START + timedelta(minutes=55), START + timedelta(minutes=66)]


def test_a_job_in_the_gap_runs_right_after_it():
    times = due(
        Cron("30 2 * * *", BERLIN), datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)
    )

    assert local(times, BERLIN) == ["29 03:00 +0200", "30 02:30 +0200"]


def test_a_job_in_a_gap_of_half_an_hour_runs_right_after_it():
    start = datetime(2026, 10, 3, 6, tzinfo=UTC)

    times = due(Cron("15 2 * * *", LORD_HOWE), start, start + timedelta(days=2))

    assert local(times, LORD_HOWE) == ["04 02:30 +1100", "05 02:15 +1100"]


def test_a_job_in_the_repeated_hour_runs_the_first_time_only():
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)

    times = due(Cron("30 2 * * *", BERLIN), start, start + timedelta(days=2))

    assert local(times, BERLIN) == ["25 02:30 +0200", "26 02:30 +0100"]


def test_a_job_asked_for_within_the_repeated_hour_waits_for_the_next_day():
    second_half_past_one = datetime(2026, 11, 1, 6, 15, tzinfo=UTC)

    times = next_times(Cron("30 1 * * *", NEW_YORK), second_half_past_one, count=1)

    assert local(times, NEW_YORK) == ["02 01:30 -0500"]


def test_two_times_in_the_gap_fire_once():
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)

    times = due(Cron("0,30 2,3 * * *", BERLIN), start, start + timedelta(days=1))

    assert local(times, BERLIN) == ["29 03:00 +0200", "29 03:30 +0200"]


def test_lord_howe_loses_no_time_when_its_clock_goes_back_half_an_hour():
    start = datetime(2026, 4, 4, 12, tzinfo=UTC)

    times = due(Cron("45 * * * *", LORD_HOWE), start, start + timedelta(hours=5))

    assert local(times, LORD_HOWE) == [
        "04 23:45 +1100",
        "05 00:45 +1100",
        "05 01:45 +1100",
        "05 01:45 +1030",
        "05 02:45 +1030",
    ]


def test_a_leap_day_is_found_years_ahead():
    assert Cron("*/5 3 29 2 *", BERLIN).after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, 2, tzinfo=UTC)


MINUTELY = Cron("* * * * *", ZoneInfo("UTC"))


def test_a_time_that_is_due_now_fires_whatever_the_catch_up():
    now = START + timedelta(seconds=1)

    plans = [plan(MINUTELY, due_at=START, now=now, catch_up=catch_up) for catch_up in CatchUp]

    assert [one.fire for one in plans] == [(START,)] * 3
    assert {one.next_at for one in plans} == {START + timedelta(minutes=1)}


def test_catch_up_none_forgets_what_is_older_than_the_grace():
    hourly = Cron("0 * * * *", ZoneInfo("UTC"))

    on_time = plan(hourly, due_at=START, now=START + GRACE, catch_up=CatchUp.NONE)
    late = plan(hourly, due_at=START, now=START + GRACE + timedelta(seconds=1), catch_up=CatchUp.NONE)

    assert on_time.fire == (START,)
    assert late.fire == ()
    assert late.next_at == START + timedelta(hours=1)


def test_catch_up_latest_fires_once_for_a_night_away():
    decision = plan(MINUTELY, due_at=START, now=START + timedelta(hours=8), catch_up=CatchUp.LATEST)

    assert decision.fire == (START + timedelta(hours=8),)


def test_catch_up_all_fires_for_every_missed_time_in_order():
    decision = plan(MINUTELY, due_at=START, now=START + timedelta(minutes=5), catch_up=CatchUp.ALL)

    assert decision.fire == tuple(START + timedelta(minutes=minute) for minute in range(6))


def test_catch_up_all_is_capped_and_keeps_the_newest():
    now = START + timedelta(days=300)

    decision = plan(MINUTELY, due_at=START, now=now, catch_up=CatchUp.ALL)

    assert len(decision.fire) == CATCH_UP_CAP
    assert decision.fire[-1] == now
    assert decision.next_at == now + timedelta(minutes=1)


def test_overlap_skip_gives_up_the_time_while_a_run_is_live():
    decision = plan(MINUTELY, due_at=START, now=START, overlap=Overlap.SKIP, live=True)

    assert decision.fire == ()
    assert decision.next_at == START + timedelta(minutes=1)


def test_overlap_queue_stays_due_while_a_run_is_live():
    held = plan(MINUTELY, due_at=START, now=START + timedelta(minutes=9), overlap=Overlap.QUEUE, live=True)
    released = plan(MINUTELY, due_at=START, now=START + timedelta(minutes=9), overlap=Overlap.QUEUE, live=False)

    assert (held.fire, held.next_at) == ((), START)
    assert released.fire == (START + timedelta(minutes=9),)


def test_overlap_queue_with_catch_up_all_goes_through_the_times_one_by_one():
    now = START + timedelta(minutes=2)

    decision = plan(MINUTELY, due_at=START, now=now, catch_up=CatchUp.ALL, overlap=Overlap.QUEUE)

    assert decision.fire == (START,)
    assert decision.next_at == START + timedelta(minutes=1)


def test_overlap_cancel_previous_stops_the_live_run_only_when_another_starts():
    starting = plan(MINUTELY, due_at=START, now=START, overlap=Overlap.CANCEL_PREVIOUS, live=True)
    late = plan(
        Cron("0 * * * *", ZoneInfo("UTC")),
        due_at=START,
        now=START + timedelta(minutes=30),
        overlap=Overlap.CANCEL_PREVIOUS,
        live=True,
    )

    assert (starting.fire, starting.cancel_previous) == ((START,), True)
    assert (late.fire, late.cancel_previous) == ((), False)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"cron": "61 * * * *"}, 'minute is "61"; allowed: *, 0-59'),
        ({"cron": "* * *"}, "3 fields; a cron expression has 5"),
        ({"cron": "0 0 30 2 *"}, "is never due"),
        ({"cron": "@reboot"}, "unknown alias; allowed: @yearly"),
        ({"cron": "*/0 * * * *"}, 'minute is "*/0"'),
        ({"cron": "0 0 * * FUN"}, 'day-of-week is "FUN"'),
        ({"every": "11"}, 'every is "11"; allowed: whole numbers of w, d, h, m, s'),
        ({"every": "0s"}, "allowed: from 1s to 366d"),
        ({"every": "9999d"}, "allowed: from 1s to 366d"),
        ({"every": "5m", "timezone": "Europe/Berln"}, 'did you mean "Europe/Berlin"?'),
        ({"cron": "* * * * *", "timezone": "../../etc/passwd"}, "no time zone is called"),
        ({}, 'a schedule has either "cron" or "every"'),
        ({"cron": "* * * * *", "every": "1m"}, "given both"),
    ],
)
def test_a_wrong_schedule_is_explained(config, says):
    whole = {"cron": None, "every": None, "timezone": None, **config}

    with pytest.raises(Invalid) as refusal:
        read_schedule(**whole, anchor=START)

    assert says in str(refusal.value)


def test_all_wrong_fields_are_reported_at_once():
    with pytest.raises(Invalid) as refusal:
        read_schedule(cron="x 25 * * *", every=None, timezone="Mars/Base", anchor=START)

    assert len(refusal.value.problems) == 3


@given(st.text(alphabet="0123456789*/-,LW#@ abcxyzSUN", max_size=30))
def test_any_text_is_read_or_explained(text):
    try:
        schedule = read_schedule(cron=text, every=None, timezone=None, anchor=START)
    except Invalid:
        return
    assert schedule.after(START) > START
