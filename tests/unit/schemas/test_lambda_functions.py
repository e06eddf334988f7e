"""Which functions a run may be handed to."""

from __future__ import annotations

import pytest

from schemas.app import AppLimits
from schemas.errors import Refused
from schemas.lambda_functions import Invocation, InvocationType, invocation_for
from schemas.settings import load_settings

SERVER = load_settings({"LAMBDA_EXECUTOR_FUNCTION": "flo"})
WAITS, QUEUED = InvocationType.REQUEST_RESPONSE, InvocationType.EVENT


def test_a_run_without_a_wish_goes_to_the_server_s_function() -> None:
    assert invocation_for({}, AppLimits(), SERVER) == Invocation("flo", WAITS)
    assert invocation_for({}, AppLimits(), load_settings({})) == Invocation(None, WAITS)


def test_a_run_may_name_what_its_operator_lists() -> None:
    limits = AppLimits(lambda_functions=("big",))

    assert invocation_for({"function": "big", "invocation": "Event"}, limits, SERVER) == Invocation("big", QUEUED)
    assert invocation_for({"function": "flo"}, AppLimits(), SERVER) == Invocation("flo", WAITS)


@pytest.mark.parametrize("wish", ["big", "https://evil.example/", 7, ["flo"]])
def test_a_run_may_name_no_other(wish: object) -> None:
    with pytest.raises(Refused, match=r"allowed: .*flo.*lambda_functions"):
        invocation_for({"function": wish}, AppLimits(), SERVER)  # type: ignore[dict-item]


def test_an_unknown_way_to_invoke_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused, match=r"'DryRun'.*RequestResponse.*Event"):
        invocation_for({"invocation": "DryRun"}, AppLimits(), SERVER)
