"""Shows a run of a server from its events, to its end."""

from __future__ import annotations

import json
from collections.abc import Iterable

from flo.cli.live import Live
from flo.client import FloClient
from flo.errors import RunFailed
from flo.wire import RunEvent


def follow_run(client: FloClient, events: Iterable[RunEvent], *, as_json: bool, verbose: bool = False) -> None:
    """Print each event as it comes, then how the run ended; raise RunFailed unless it succeeded."""
    live = Live(verbose=verbose)
    last: RunEvent | None = None
    for last in events:
        if as_json:
            print(json.dumps(last, ensure_ascii=False), flush=True)
        else:
            live.show(last)
    if last is None:
        return
    run = client.run(last["run_id"])
    if not as_json:
        live.summary(run)
    if run["status"] != "succeeded":
        raise RunFailed(run)
