"""Results that are kept, and forgotten on demand."""

from __future__ import annotations

from datetime import timedelta

from tests.integration.scheduler.conftest import Api
from workers.engine.results import Question
from workers.shared_in_sql import StoredResults


def question(app: str, node_type: str) -> Question:
    return Question(app=app, node_type=node_type, fingerprint="f" * 64)


async def test_an_app_s_results_are_forgotten_by_node_type_or_all(shop: Api) -> None:
    kept = StoredResults(shop.spine.store)
    for asked in (question("shop", "a"), question("shop", "b"), question("other", "a")):
        await kept.put(asked, {"n": 1}, timedelta(hours=1))

    one = await shop.send("DELETE", "/api/v1/apps/shop/cache", params={"node_type": "a"})
    rest = await shop.send("DELETE", "/api/v1/apps/shop/cache")

    assert (one.json(), rest.json()) == ({"forgotten": 1}, {"forgotten": 1})
    assert await kept.get(question("other", "a")) == {"n": 1}


async def test_a_key_that_may_only_read_forgets_nothing(shop: Api) -> None:
    key = await shop.key("read")

    answer = await shop.send("DELETE", "/api/v1/apps/shop/cache", headers={"Authorization": f"Bearer {key}"})

    assert answer.status_code == 403
