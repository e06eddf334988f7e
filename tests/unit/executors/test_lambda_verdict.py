"""What a function's failure means for its run."""

from __future__ import annotations

from schemas.outcome import ErrorKind, Failed, Retry
from workers.executors.awslambda.errors import FunctionFailed, failure_in
from workers.executors.awslambda.verdict import verdict


def judged(kind: str, message: str) -> Failed | Retry:
    outcome = verdict(FunctionFailed(kind, message), function="flo")
    assert isinstance(outcome, Failed | Retry)
    return outcome


def test_a_function_that_the_kernel_killed_used_too_much_memory() -> None:
    outcome = judged("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: signal: killed")

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.MEMORY_EXCEEDED
    assert "MemorySize" in outcome.error.message


def test_a_function_that_lambda_ended_took_too_long() -> None:
    outcome = judged("", "2026-11-21T08:00:00Z 1 Task timed out after 3.00 seconds")

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.TIMED_OUT
    assert "raise its Timeout" in outcome.error.message


def test_a_function_that_ended_otherwise_is_tried_again() -> None:
    outcome = judged("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: exit status 1")

    assert isinstance(outcome, Retry)
    assert "exit status 1" in outcome.reason


def test_what_the_function_lacks_is_passed_on() -> None:
    outcome = judged("Unavailable", "namespaces are not allowed here")

    assert isinstance(outcome, Retry)
    assert "namespaces are not allowed here" in outcome.reason


def test_a_failure_that_is_no_object_is_shown_as_it_is() -> None:
    assert failure_in(b"Internal Server Error").message == "Internal Server Error"
    assert failure_in(b"[1]").message == "[1]"
