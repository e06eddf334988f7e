"""How the nodes of a run are shown follows from what happened."""

from __future__ import annotations

from document_maker import flow, node, read

from schemas.fold import nodes_from
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening, NodeView

DOCUMENT = read(flow(node("a"), node("b")))[0]
ERROR = RunError(kind=ErrorKind.USER, message="no", node_id="a")


def started(attempt: int = 1) -> Happening:
    return Happening(EventType.NODE_STARTED, {"node_type": "debug.log", "attempt": attempt}, "a")


def ended(type_: EventType) -> Happening:
    return Happening(type_, {"error": ERROR.model_dump(mode="json"), "attempt": 1}, "a")


def completed() -> Happening:
    return Happening(EventType.NODE_COMPLETED, {"outputs": {"message": 1}, "attempt": 1}, "a")


def first(*happenings: Happening) -> NodeView:
    return nodes_from(DOCUMENT, happenings)[0]


def test_before_anything_happens_every_node_is_pending() -> None:
    assert [(view.id, view.status, view.attempts) for view in nodes_from(DOCUMENT, [])] == [
        ("a", "pending", 0),
        ("b", "pending", 0),
    ]


def test_a_node_that_started_is_running() -> None:
    assert first(started()).status == "running"


def test_a_node_that_completed_shows_its_outputs() -> None:
    start, end = started(), completed()

    view = first(start, end)

    assert (view.status, view.outputs, view.started_at, view.finished_at) == (
        "succeeded",
        {"message": 1},
        start.time,
        end.time,
    )


def test_a_node_that_waits_for_its_retry_shows_why() -> None:
    view = first(started(), ended(EventType.NODE_RETRYING))

    assert (view.status, view.error) == ("retrying", ERROR)


def test_a_retry_that_works_clears_the_error_and_counts_the_attempts() -> None:
    view = first(started(1), ended(EventType.NODE_RETRYING), started(2), completed())

    assert (view.status, view.error, view.attempts) == ("succeeded", None, 2)


def test_a_node_that_failed_shows_its_error() -> None:
    view = first(started(), ended(EventType.NODE_FAILED))

    assert (view.status, view.error) == ("failed", ERROR)


def test_nodes_that_never_ran_are_skipped_once_the_run_is_over() -> None:
    over = Happening(EventType.RUN_COMPLETED, {"status": "failed"})

    views = nodes_from(DOCUMENT, [started(), ended(EventType.NODE_FAILED), over])

    assert [view.status for view in views] == ["failed", "skipped"]


def test_a_redriven_run_may_yet_come_to_the_nodes_it_skipped() -> None:
    over = Happening(EventType.RUN_COMPLETED, {"status": "dead"})

    views = nodes_from(DOCUMENT, [over, Happening(EventType.RUN_STARTED, {"attempt": 2})])

    assert [view.status for view in views] == ["pending", "pending"]


def test_a_node_whose_worker_died_for_good_has_failed() -> None:
    view = first(started(), Happening(EventType.RUN_COMPLETED, {"status": "dead"}))

    assert view.status == "failed"
    assert view.error is not None
    assert view.error.kind is ErrorKind.LOST


def test_what_happened_to_unknown_nodes_is_passed_over() -> None:
    assert first(Happening(EventType.NODE_STARTED, {"attempt": 1}, "gone")).status == "pending"
