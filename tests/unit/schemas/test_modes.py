"""Which execution mode a run gets."""

from __future__ import annotations

import pytest

from schemas.app import AppLimits
from schemas.errors import Refused
from schemas.modes import mode_for
from schemas.settings import ExecutionMode, Settings, load_settings

_NO_LIMITS = AppLimits()


def settings(**variables: str) -> Settings:
    return load_settings({f"FLO_{name.upper()}": value for name, value in variables.items()})


def test_a_run_without_a_wish_gets_the_servers_mode() -> None:
    assert mode_for({}, _NO_LIMITS, settings(execution_mode="SANDBOX_PROCESS")) is ExecutionMode.SANDBOX_PROCESS


def test_an_apps_mode_counts_more_than_the_servers() -> None:
    limits = AppLimits(execution_mode=ExecutionMode.SANDBOX_CODE_AND_PROCESS)

    assert mode_for({}, limits, settings(execution_mode="SANDBOX_PROCESS")) is limits.execution_mode


def test_a_runs_wish_counts_most() -> None:
    limits = AppLimits(execution_mode=ExecutionMode.SANDBOX_PROCESS)
    wish = {"execution_mode": "SANDBOX_CODE_AND_PROCESS"}

    found = mode_for(wish, limits, settings(execution_mode="SANDBOX_CODE_ONLY"))

    assert found is ExecutionMode.SANDBOX_CODE_AND_PROCESS


@pytest.mark.parametrize("weaker", ["UNSANDBOXED", "SANDBOX_CODE_ONLY"])
def test_nothing_weaker_than_the_servers_mode_is_given(weaker: str) -> None:
    strong = settings(execution_mode="SANDBOX_PROCESS")

    with pytest.raises(Refused, match="nothing weaker than SANDBOX_PROCESS"):
        mode_for({"execution_mode": weaker}, _NO_LIMITS, strong)
    with pytest.raises(Refused, match="nothing weaker than SANDBOX_PROCESS"):
        mode_for({}, AppLimits(execution_mode=ExecutionMode(weaker)), strong)


def test_the_operator_may_name_a_weaker_floor() -> None:
    given = settings(execution_mode="SANDBOX_CODE_AND_PROCESS", weakest_mode="SANDBOX_CODE_ONLY")

    assert mode_for({"execution_mode": "SANDBOX_CODE_ONLY"}, _NO_LIMITS, given) is ExecutionMode.SANDBOX_CODE_ONLY
    with pytest.raises(Refused):
        mode_for({"execution_mode": "UNSANDBOXED"}, _NO_LIMITS, given)


@pytest.mark.parametrize("wish", ["sandbox", "", 7, ["UNSANDBOXED"], {}])
def test_a_wish_that_is_no_mode_is_named_with_those_that_are(wish: object) -> None:
    with pytest.raises(Refused, match="allowed: UNSANDBOXED"):
        mode_for({"execution_mode": wish}, _NO_LIMITS, settings())  # type: ignore[dict-item]
