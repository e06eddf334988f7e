"""Flows are checked by the mode that their runs will have, and wishes by what the operator allows."""

from __future__ import annotations

import pytest

from dispatch.leases import WorkerIdentity, WorkerLease
from schemas.settings import ExecutionMode

SHELL = {"name": "sh", "nodes": [{"id": "ls", "node_type": "shell.exec", "config": {"command": "ls"}}]}
PACKAGE = {
    "name": "npm",
    "nodes": [
        {
            "id": "slug",
            "node_type": "code.javascript",
            "config": {"code": "export default () => 1", "dependencies": {"slug": "1.0.0"}},
        }
    ],
}


async def with_worker(api, mode: ExecutionMode | None, number: int = 1) -> None:
    """Have a live worker in this mode."""
    identity = WorkerIdentity(id=f"wrk_{number}", hostname="flo@here", lanes=("flow",), concurrency=1)
    await WorkerLease(api.spine.store, identity).begin(mode)


async def test_a_command_is_refused_at_push_where_the_workers_have_no_place_for_it(api):
    await with_worker(api, ExecutionMode.SANDBOX_CODE_ONLY)

    answer = await api.push(document=SHELL)

    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["path"] == "nodes[0].node_type"
    assert "shell.exec is not allowed in execution mode SANDBOX_CODE_ONLY" in problem["message"]
    assert "SANDBOX_CODE_AND_PROCESS" in problem["fix"]


@pytest.mark.parametrize("mode", [mode for mode in ExecutionMode if mode is not ExecutionMode.SANDBOX_CODE_ONLY])
async def test_a_command_is_taken_where_the_workers_have_a_place_for_it(api, mode):
    await with_worker(api, mode)

    assert (await api.push(document=SHELL)).status_code == 201


async def test_before_there_is_a_worker_nothing_is_refused_for_its_mode(api):
    assert (await api.push(document=SHELL)).status_code == 201


async def test_one_worker_without_a_place_for_commands_is_enough_to_refuse_them(api):
    await with_worker(api, ExecutionMode.SANDBOX_CODE_AND_PROCESS, 1)
    await with_worker(api, ExecutionMode.SANDBOX_CODE_ONLY, 2)

    assert (await api.push(document=SHELL)).status_code == 422


async def test_an_app_with_a_mode_of_its_own_is_checked_by_it(api):
    await with_worker(api, ExecutionMode.SANDBOX_CODE_ONLY)
    await api.push()
    limits = {"execution_mode": "SANDBOX_CODE_AND_PROCESS"}
    assert (await api.send("PUT", "/api/v1/apps/shop/limits", json=limits)).status_code == 200

    assert (await api.push(document=SHELL)).status_code == 201


async def test_packages_are_held_to_the_operators_list_only_where_isolates_run_them(api):
    await with_worker(api, ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    refused = await api.push(document=PACKAGE)
    await api.send("PUT", "/api/v1/apps/shop/limits", json={"execution_mode": "SANDBOX_PROCESS"})
    await api.push()
    await api.send("PUT", "/api/v1/apps/shop/limits", json={"execution_mode": "SANDBOX_PROCESS"})

    taken = await api.push(document=PACKAGE)

    assert (refused.status_code, taken.status_code) == (422, 201)


async def test_a_run_may_not_ask_for_a_weaker_mode(shop):
    await with_worker(shop, ExecutionMode.SANDBOX_CODE_AND_PROCESS)

    answer = await shop.send(
        "POST",
        "/api/v1/apps/shop/events/go/invoke/async",
        json={"backend_config": {"execution_mode": "UNSANDBOXED"}},
    )

    assert answer.status_code == 403
    assert "nothing weaker than SANDBOX_CODE_AND_PROCESS" in answer.json()["detail"]


async def test_a_run_may_ask_for_a_stronger_mode(shop):
    await with_worker(shop, ExecutionMode.SANDBOX_CODE_ONLY)

    await shop.start(json={"backend_config": {"execution_mode": "SANDBOX_PROCESS"}})


async def test_a_wish_that_is_no_mode_is_refused_with_those_that_are(shop):
    answer = await shop.send(
        "POST", "/api/v1/apps/shop/events/go/invoke/async", json={"backend_config": {"execution_mode": "BEST"}}
    )

    assert answer.status_code == 403
    assert "allowed: UNSANDBOXED" in answer.json()["detail"]
