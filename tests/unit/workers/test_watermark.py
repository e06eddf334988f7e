from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.carriers.watermark import Watermark


def test_nothing_is_committed_before_anything_was_delivered() -> None:
    assert Watermark().position is None


def test_an_undecided_message_holds_the_position_back() -> None:
    mark = Watermark()
    for offset in (10, 11, 12):
        mark.deliver(offset)

    mark.decide(11)
    mark.decide(12)
    held = mark.position
    mark.decide(10)

    assert (held, mark.position) == (10, 13)


def test_a_message_that_came_before_is_not_taken_twice() -> None:
    mark = Watermark()

    assert (mark.deliver(5), mark.deliver(5), mark.deliver(4), mark.deliver(9)) == (True, False, False, True)


@given(st.sets(st.integers(0, 500), min_size=1), st.randoms(use_true_random=False), st.data())
def test_the_position_is_the_first_undecided_offset_whatever_the_order(offsets, random, data) -> None:
    ordered = sorted(offsets)
    mark = Watermark()
    for offset in ordered:
        mark.deliver(offset)
    shuffled = list(ordered)
    random.shuffle(shuffled)
    decided = shuffled[: data.draw(st.integers(0, len(shuffled)))]

    for offset in decided:
        mark.decide(offset)

    undecided = [offset for offset in ordered if offset not in set(decided)]
    assert mark.position == (undecided[0] if undecided else ordered[-1] + 1)
