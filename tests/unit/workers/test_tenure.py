from __future__ import annotations

import time
from datetime import timedelta

from workers.tenure import Lease, without_end

LASTS = timedelta(seconds=100)


def test_what_has_begun_goes_on_while_heartbeats_come_in_time() -> None:
    lease = Lease(LASTS)
    holds = lease.begin()

    in_time = lease.renew(time.monotonic())

    assert (in_time, holds()) == (True, True)


def test_what_has_begun_before_a_late_heartbeat_never_acts_again() -> None:
    lease = Lease(LASTS)
    before = lease.begin()
    lease.tenure.until = time.monotonic() - 1

    in_time = lease.renew(time.monotonic())
    after = lease.begin()
    lease.renew(time.monotonic())

    assert (in_time, before(), after()) == (False, False, True)


def test_a_heartbeat_counts_from_when_it_was_begun() -> None:
    lease = Lease(LASTS)

    lease.renew(time.monotonic() - 200)

    assert not lease.tenure.holds()
    assert lease.left() < timedelta(0)


def test_a_little_less_than_the_lease_is_counted_on() -> None:
    lease = Lease(LASTS)

    lease.renew(time.monotonic())

    assert timedelta(seconds=80) < lease.left() <= timedelta(seconds=90)


def test_what_has_no_lease_goes_on() -> None:
    assert without_end()()
