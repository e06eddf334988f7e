"""`flo queues`: what waits and what runs, lane by lane."""

from __future__ import annotations

import json

from flo.cli.options import AsJSON, Key, Url

_LANES = ("recurring", "webhook", "flow")
_STATUSES = ("queued", "running", "waiting")


def queues(*, url: Url = None, key: Key = None, as_json: AsJSON = False) -> None:
    """Count each lane's runs that are not over, and the jobs that have not reached the broker yet."""
    from flo.cli.tables import print_table
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        lanes, unpublished = counted(client.metrics())
    if as_json:
        print(
            json.dumps(
                {"items": [{"lane": lane, **counts} for lane, counts in lanes.items()], "unpublished": unpublished},
                indent=2,
            )
        )
        return
    rows = [[lane, *(str(counts[status]) for status in _STATUSES)] for lane, counts in lanes.items()]
    print_table(["Lane", *map(str.capitalize, _STATUSES)], rows, what="lanes")
    if unpublished:
        print(f"{unpublished} jobs have not reached the broker yet; the scheduler's relay publishes them")


def counted(metrics: str) -> tuple[dict[str, dict[str, int]], int]:
    """Read the runs by lane and status, and the rows of the outbox, from Prometheus text."""
    from prometheus_client.parser import text_string_to_metric_families

    lanes = {lane: dict.fromkeys(_STATUSES, 0) for lane in _LANES}
    unpublished = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "flo_runs":
                lane = lanes.setdefault(sample.labels["lane"], dict.fromkeys(_STATUSES, 0))
                lane[sample.labels["status"]] = int(sample.value)
            elif sample.name == "flo_outbox_rows":
                unpublished = int(sample.value)
    return lanes, unpublished
