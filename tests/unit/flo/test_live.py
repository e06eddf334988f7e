from __future__ import annotations

import pytest

from flo.cli.live import Live
from flo.wire import Run, RunEvent

TIME = "2026-11-21T00:00:00+00:00"


def run(status: str) -> Run:
    error = None if status == "succeeded" else {"kind": "user_error", "message": "no luck", "node_id": "greet"}
    node = {"id": "greet", "node_type": "code.javascript", "status": status, "attempts": 1, "outputs": {"text": "hi"}}
    return {  # type: ignore[typeddict-item]
        "run_id": "run_1",
        "status": status,
        "result": {"text": "hi"},
        "error": error,
        "created_at": TIME,
        "started_at": TIME,
        "finished_at": "2026-11-21T00:00:01.500000+00:00",
        "nodes": [{**node, "started_at": TIME, "finished_at": TIME, "error": error}],
    }


def event(**said: object) -> RunEvent:
    return {"seq": 1, "run_id": "run_1", "time": TIME, **said}  # type: ignore[typeddict-item]


def test_a_run_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live()
    live.show(event(type="run_started", attempt=1))
    live.show(event(type="node_started", node_id="greet", node_type="code.javascript"))
    live.show(event(type="log", node_id="greet", level="info", message="[red]hello"))
    live.show(event(type="node_completed", node_id="greet", duration_ms=3.2, outputs={"text": "hi"}))

    assert capsys.readouterr().out.splitlines() == [
        "▶️  Flow started",
        "⚡ Starting node: greet (code.javascript)",
        "  │ greet: [red]hello",
        "✅ Node greet completed in 3 ms",
    ]


def test_a_success_is_summed_up_with_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    Live().summary(run("succeeded"))

    assert capsys.readouterr().out.splitlines() == [
        "✨ Flow completed successfully in 1500 ms",
        "📊 Execution Summary:",
        "   Run: run_1",
        "   Completed: 1/1 nodes",
        '   Result: {"text": "hi"}',
    ]


def test_a_failure_is_summed_up_with_its_reason_and_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    Live().summary(run("timed_out"))

    said = capsys.readouterr().out
    assert "Flow timed out after 1500 ms: greet: no luck" in said
    assert "Completed: 0/1 nodes" in said
    assert "Result" not in said


def test_a_type_that_is_not_known_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Live().show(event(type="from_the_future"))

    assert capsys.readouterr().out == ""


def test_outputs_are_shown_to_who_asks_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    Live(verbose=True).show(event(type="node_completed", node_id="greet", duration_ms=3, outputs={"text": "hi"}))

    assert '{"text": "hi"}' in capsys.readouterr().out
