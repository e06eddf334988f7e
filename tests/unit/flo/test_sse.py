from __future__ import annotations

import json

from flo.sse import Reader
from flo.wire import RunEvent


def event(seq: int) -> RunEvent:
    return {"seq": seq, "run_id": "run_1", "type": "log", "time": "2026-11-21T00:00:00+00:00", "message": "a: b"}


def read(*lines: str) -> list[RunEvent]:
    reader = Reader()
    return [found for line in lines if (found := reader.line(line)) is not None]


def test_an_event_is_whole_at_its_empty_line() -> None:
    assert read("event: log", "id: 1", f"data: {json.dumps(event(1))}") == []
    assert read("event: log", "id: 1", f"data: {json.dumps(event(1))}", "") == [event(1)]


def test_comments_and_empty_lines_between_events_mean_nothing() -> None:
    first, second = (f"data: {json.dumps(event(seq))}" for seq in (1, 2))

    assert read(": still here", "", first, "", "", ": still here", "", second, "") == [event(1), event(2)]


def test_data_over_several_lines_is_put_together() -> None:
    lines = [f"data:{line}" for line in json.dumps(event(1), indent=1).splitlines()]

    assert read(*lines, "") == [event(1)]
