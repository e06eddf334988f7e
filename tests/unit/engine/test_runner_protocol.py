"""What the runner prints is a line of JSON, whatever the nodes of a run gave."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

from schemas.json import JSONValue
from schemas.run import RunStatus, RunView
from workers.runner.protocol import write_line


def run_with(result: JSONValue) -> RunView:
    now = datetime.now(UTC)
    return RunView(
        run_id="run_1", app="a", flow="f", version=1, event=None, lane="flow", status=RunStatus.SUCCEEDED, attempt=1,
        executor="inline", payload=None, result=result, error=None, created_at=now, started_at=now, finished_at=now,
        nodes=[],
    )  # fmt: skip


def test_half_a_surrogate_pair_and_large_integers_can_be_printed() -> None:
    out = io.StringIO()

    write_line(run_with({"cut": "\ud83d", "n": 10**30}), out)

    assert out.getvalue().encode().endswith(b"}\n")
    assert json.loads(out.getvalue())["result"] == {"cut": "\ufffd", "n": 10**30}
