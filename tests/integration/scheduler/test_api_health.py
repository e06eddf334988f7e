"""Health, figures and the OpenAPI document."""

from __future__ import annotations

import json

from scheduler.routes import hooks


async def test_the_process_is_alive_without_a_key(api):
    answer = await api.client.get("/healthz", headers={"Authorization": ""})

    assert answer.json() == {"status": "ok"}


async def test_readiness_says_which_part_is_away(api):
    ready = await api.send("GET", "/readyz")
    api.queue.available = False
    away = await api.send("GET", "/readyz")

    assert (ready.status_code, ready.json()["broker"]) == (200, "ok")
    assert (away.status_code, away.json()["database"]) == (503, "ok")
    assert "made unavailable" in away.json()["broker"]


async def test_figures_count_requests_and_runs(shop):
    await shop.start()

    figures = (await shop.send("GET", "/metrics")).text

    assert 'flo_runs_accepted_total{lane="flow"} 1.0' in figures
    assert 'flo_runs{lane="flow",status="queued"} 1.0' in figures
    assert 'route="/api/v1/apps/{app}/events/{event}/invoke/async",status="202"' in figures
    assert "shop" not in figures


async def test_the_openapi_document_describes_bodies_answers_and_problems(api):
    document = (await api.send("GET", "/openapi.json")).json()

    invoke = document["paths"]["/api/v1/apps/{app}/events/{event}/invoke/async"]["post"]
    body = invoke["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"payload", "version", "mode", "priority", "run_at"}
    assert "application/problem+json" in invoke["responses"]["422"]["content"]
    assert invoke["responses"]["202"]["content"]["application/json"]["schema"]
    assert "$defs" not in json.dumps(document)


async def test_every_reference_in_the_openapi_document_leads_somewhere(api):
    document = (await api.send("GET", "/openapi.json")).json()

    wanted = {part.split('"')[0] for part in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert wanted <= set(document["components"]["schemas"])


def test_webhooks_take_every_usual_method():
    assert set(hooks._METHODS) >= {"GET", "POST", "PUT", "PATCH", "DELETE"}
