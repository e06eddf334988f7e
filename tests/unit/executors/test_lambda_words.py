"""What a worker and a function say to each other."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from tests.making import NO_OP
from workers.executors.base import RunOrder
from workers.runner.awslambda.words import (
    Answer,
    Inline,
    NotAnEvent,
    Token,
    Told,
    answer_from,
    call_from,
    inline_to,
    token_to,
    told_to,
)

DOCUMENT, _ = read_document(
    NO_OP, catalog=load_catalog(ExecutionMode.SANDBOX_PROCESS), max_inline_http=timedelta(minutes=5)
)
ORDER = RunOrder(
    run_id="run_1", app="shop", flow="f", version=1, attempt=2, document=DOCUMENT, payload={"n": 10**30},
    backend_config={},
)  # fmt: skip


def over_http(body: bytes, *, encoded: bool) -> dict[str, Any]:
    """Wrap an event as a Function URL does."""
    text = base64.b64encode(body).decode() if encoded else body.decode()
    http = {"method": "POST"}
    return {"version": "2.0", "requestContext": {"http": http}, "body": text, "isBase64Encoded": encoded}


def test_an_order_comes_as_it_was_sent() -> None:
    call = call_from(json.loads(inline_to(ORDER, AppLimits(), until=5.0)))

    assert isinstance(call, Inline)
    assert (call.order.as_run_order().payload, call.order.attempt, call.until) == ({"n": 10**30}, 2, 5.0)


def test_a_token_says_where_the_order_is() -> None:
    assert call_from(json.loads(token_to("https://flo.example", "t"))) == Token(api="https://flo.example", token="t")


@pytest.mark.parametrize("encoded", [False, True])
def test_a_request_to_a_function_url_holds_the_event(encoded: bool) -> None:
    event = over_http(token_to("https://flo.example", "t"), encoded=encoded)

    assert isinstance(call_from(event), Token)


@pytest.mark.parametrize(
    "event",
    [
        None, [], {}, {"order": {}}, {"api": "ftp://flo", "token": "t"},
        {"api": "https://flo", "token": "t", "order": {}},
        over_http(b"not json", encoded=False), over_http(b"", encoded=True),
        {**over_http(b"{}", encoded=False), "isBase64Encoded": True, "body": "%"},
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_fix(event: Any) -> None:
    with pytest.raises(NotAnEvent, match=r"LAMBDA_EXECUTOR_FUNCTION|no order"):
        call_from(event)


def test_an_answer_is_either_all_or_that_the_api_knows() -> None:
    assert answer_from(told_to(Told())) == Told()
    assert answer_from(told_to(Told("no", elsewhere=True))) == Told("no", elsewhere=True)
    assert answer_from({"events": [], "outcome": {"is": "retry"}}) == Answer([], {"is": "retry"})
    with pytest.raises(LookupError):
        answer_from({"statusCode": 200})
