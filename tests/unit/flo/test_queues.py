from __future__ import annotations

from flo.cli.queues import counted

METRICS = """\
# HELP flo_runs Runs that are not over, by lane and status
# TYPE flo_runs gauge
flo_runs{lane="flow",status="queued"} 3.0
flo_runs{lane="flow.gpu",status="running"} 1.0
# HELP flo_outbox_rows Messages that have not reached the broker yet
# TYPE flo_outbox_rows gauge
flo_outbox_rows 2.0
"""


def test_every_lane_is_counted_also_the_empty_ones() -> None:
    lanes, unpublished = counted(METRICS)

    assert lanes["flow"] == {"queued": 3, "running": 0, "waiting": 0}
    assert lanes["flow.gpu"]["running"] == 1
    assert lanes["webhook"] == {"queued": 0, "running": 0, "waiting": 0}
    assert unpublished == 2
