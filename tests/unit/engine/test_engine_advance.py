"""What a run promises, whatever its graph, its failures and the order in which its nodes end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from simulated_run import Chooser, Story, acyclic_document, choosers, play, play_to_the_end, stories

from schemas.flow import RetryPolicy
from schemas.outcome import ErrorKind, RunError
from workers.engine.actions import End, GiveUp, Pause, Start, StartOver, Suspend
from workers.engine.advance import Checkpoint, RunState
from workers.engine.graph import graph_of

OOPS = RunError(kind=ErrorKind.USER, message="oops")
LOST = RunError(kind=ErrorKind.LOST, message="the host died")


def state_of(size: int, *edges: tuple[int, int], policy: RetryPolicy | None = None, **settings: object) -> RunState:
    document = acyclic_document(size, edges, policies=[policy] * size, **settings)
    return RunState(graph_of(document), document.nodes, document.settings)


def waits_for_less(story: Story) -> bool:
    """Tell whether some node starts before all that feed it are over: what it hears is a matter of timing."""
    return any(node.trigger_rule in ("one_success", "one_failed") for node in story.document.nodes)


@given(stories(), choosers())
def test_a_node_starts_at_most_once_per_attempt(story: Story, choose: Chooser) -> None:
    starts = play(story, choose).starts

    assert len(starts) == len(set(starts))


@given(stories(), choosers())
def test_a_node_never_starts_before_its_inputs_are_there(story: Story, choose: Chooser) -> None:
    assert play(story, choose).early == []


@given(stories(), choosers())
def test_the_parallel_limit_is_never_exceeded(story: Story, choose: Chooser) -> None:
    assert play(story, choose).most_at_once <= story.document.settings.most_at_once


@given(stories(), choosers(), choosers())
def test_the_verdict_does_not_depend_on_the_order_in_which_nodes_end(
    story: Story, choose: Chooser, otherwise: Chooser
) -> None:
    one, other = play(story, choose), play(story, otherwise)

    assert (one.end == End(None)) == (other.end == End(None))
    assert one.end != End(None) or one.fates == other.fates
    assert one.end != End(None) or waits_for_less(story) or one.outputs == other.outputs


@given(stories(), choosers(), choosers(), st.data())
def test_a_checkpoint_taken_anywhere_resumes_to_the_same_result(
    story: Story, choose: Chooser, afterwards: Chooser, data: st.DataObject
) -> None:
    whole = play(story, choose)
    cut = data.draw(st.integers(0, len(whole.happenings)))

    resumed = play(story, afterwards, past=whole.happenings[:cut])

    assert (resumed.end == End(None)) == (whole.end == End(None))
    assert whole.end != End(None) or resumed.fates == whole.fates
    assert whole.end != End(None) or waits_for_less(story) or resumed.outputs == whole.outputs


@given(stories(), choosers(), choosers(), st.data())
def test_what_was_completed_before_a_checkpoint_is_not_run_again_in_that_round(
    story: Story, choose: Chooser, afterwards: Chooser, data: st.DataObject
) -> None:
    whole = play(story, choose)
    cut = data.draw(st.integers(0, len(whole.happenings)))

    resumed = play(story, afterwards, past=whole.happenings[:cut])

    completed = [(said.node_id, said.data["round"]) for said in resumed.happenings if said.type == "node_completed"]
    assert len(completed) == len(set(completed))


def test_everything_that_waits_for_nothing_starts_at_once() -> None:
    assert state_of(3, (0, 2)).begin() == [Start(0, 1), Start(1, 1)]


def test_a_full_flow_starts_the_next_node_when_one_ends() -> None:
    state = state_of(3, max_parallel_nodes=2)
    state.begin()

    assert state.succeeded(1, {}) == [Start(2, 1)]


def test_a_pause_before_a_retry_gives_its_place_to_another_node() -> None:
    state = state_of(2, policy=RetryPolicy(max_attempts=2, delay_ms=100), max_parallel_nodes=1)
    state.begin()

    assert state.failed(0, OOPS) == [Pause(0, 1, OOPS, timedelta(milliseconds=100)), Start(1, 1)]


def test_a_flow_with_a_paused_node_is_not_over() -> None:
    state = state_of(2, policy=RetryPolicy(max_attempts=2, delay_ms=100))
    state.begin()
    state.failed(0, OOPS)

    assert state.succeeded(1, {}) == []
    assert state.due(0) == [Start(0, 2)]
    assert state.succeeded(0, {}) == [End(None)]


def test_stop_workflow_ends_at_the_first_failure() -> None:
    state = state_of(2)
    state.begin()

    assert state.failed(0, OOPS) == [GiveUp(0, 1, OOPS), End(OOPS)]


def test_what_ends_after_the_end_changes_nothing() -> None:
    state = state_of(2)
    state.begin()
    state.failed(0, OOPS)

    assert state.succeeded(1, {}) == []
    assert state.failed(1, OOPS) == []
    assert state.due(1) == []


def test_continue_on_error_runs_the_dependents_without_the_missing_port() -> None:
    state = state_of(2, (0, 1), on_error="ContinueOnError")
    state.begin()

    assert state.failed(0, OOPS) == [GiveUp(0, 1, OOPS), Start(1, 1)]
    assert state.errors == {0: OOPS}
    assert state.succeeded(1, {}) == [End(None)]


def test_retry_workflow_starts_everything_over_as_often_as_it_may() -> None:
    state = state_of(2, (0, 1), on_error={"RetryWorkflow": {"max_attempts": 2}})
    state.begin()
    state.succeeded(0, {})

    assert state.failed(1, OOPS) == [GiveUp(1, 1, OOPS), StartOver(2, OOPS)]
    assert state.begin() == [Start(0, 2)]
    assert state.succeeded(0, {}) == [Start(1, 2)]
    assert state.failed(1, OOPS) == [GiveUp(1, 2, OOPS), End(OOPS)]


def test_a_node_whose_sandbox_is_lost_once_starts_again_at_once_without_a_policy() -> None:
    state = state_of(1)
    state.begin()

    assert state.failed(0, LOST) == [Pause(0, 1, LOST, timedelta(0))]
    assert state.due(0) == [Start(0, 2)]


def test_a_node_whose_sandbox_is_lost_twice_fails_by_flos_own_fault() -> None:
    state = state_of(1)
    state.begin()
    state.failed(0, LOST)
    state.due(0)

    _, end = state.failed(0, LOST)

    assert isinstance(end, End)
    assert end.error is not None
    assert end.error.kind is ErrorKind.INTERNAL


def test_a_run_that_was_over_is_over_when_it_is_resumed() -> None:
    document = acyclic_document(1, [])

    checkpoint = Checkpoint(done={0: {"a": 1}})
    state = RunState(graph_of(document), document.nodes, document.settings, checkpoint=checkpoint)

    assert state.begin() == [End(None)]


@st.composite
def parking_stories(draw: st.DrawFn) -> Story:
    """Any story, some of whose nodes park before they go on."""
    story = draw(stories())
    size = len(story.fails)
    return replace(story, parks=tuple(draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=size, max_size=size))))


@given(parking_stories(), choosers(), choosers())
def test_a_run_that_parks_comes_to_the_same_end_as_one_that_does_not(
    story: Story, choose: Chooser, otherwise: Chooser
) -> None:
    parked, straight = play_to_the_end(story, choose), play(replace(story, parks=()), otherwise)

    assert (parked.end == End(None)) == (straight.end == End(None))
    assert straight.end != End(None) or parked.fates == straight.fates
    assert straight.end != End(None) or waits_for_less(story) or parked.outputs == straight.outputs


def test_a_parked_node_lets_everything_else_run_first() -> None:
    state = state_of(3, (1, 2))

    assert state.begin() == [Start(0, 1), Start(1, 1)]
    assert state.parked(0) == []
    assert state.succeeded(1, {"said": 1}) == [Start(2, 1)]
    assert state.succeeded(2, {}) == [Suspend((0,))]


def test_a_failure_ends_a_run_although_others_of_its_nodes_wait() -> None:
    state = state_of(2)
    state.begin()
    state.parked(0)

    assert state.failed(1, OOPS) == [GiveUp(1, 1, OOPS), End(OOPS)]


def test_a_retry_that_is_due_soon_is_waited_for_before_the_run_is_parked() -> None:
    state = state_of(2, policy=RetryPolicy(max_attempts=2))
    state.begin()
    state.parked(0)
    state.failed(1, OOPS)
    state.due(1)

    assert state.succeeded(1, {}) == [Suspend((0,))]
