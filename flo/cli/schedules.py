"""`flo schedules`: what starts by the clock."""

from __future__ import annotations

import json

from flo.cli.options import App, AsJSON, Key, Limit, Url


def schedules(
    *, limit: Limit = 100, url: Url = None, app: App = None, key: Key = None, as_json: AsJSON = False
) -> None:
    """List an app's schedules, each with its next due time."""
    from flo import calls
    from flo.cli.tables import local_time, print_table
    from flo.client import FloClient

    with FloClient(url, app=app, key=key) as client:
        found = client.send(calls.events(client.app, kind="schedule", limit=limit))["items"]
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print_table(
        ["Event", "Flow", "When", "Time zone", "State", "Next", "Last"],
        [
            [
                event["event"],
                event["flow"],
                event["config"].get("cron") or f"every {event['config'].get('every')}",
                event["config"].get("timezone") or "UTC",
                "paused" if event["paused"] else "on",
                local_time(event["next_at"]),
                local_time(event["last_at"]),
            ]
            for event in found
        ],
        what="schedules",
    )
