from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.catalog import load_catalog
from schemas.errors import Invalid
from schemas.flow import FlowDocument
from schemas.validation import read_document
from tests.making import NO_OP
from workers.engine import plan as plan_module
from workers.engine.plan import Plans
from workers.engine.registry import BUILT_IN


def document() -> FlowDocument:
    return read_document(NO_OP, catalog=load_catalog(), max_inline_http=timedelta(seconds=300))[0]


def test_a_document_is_made_ready_once() -> None:
    plans, known = Plans(BUILT_IN), document()

    assert plans.of(known) is plans.of(known)


def test_equal_documents_have_plans_of_their_own() -> None:
    plans = Plans(BUILT_IN)

    assert plans.of(document()) is not plans.of(document())


def test_those_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_KEPT", 2)
    plans, one, two = Plans(BUILT_IN), document(), document()
    first, second = plans.of(one), plans.of(two)
    plans.of(one)

    plans.of(document())

    assert plans.of(one) is first
    assert plans.of(two) is not second


def test_what_can_not_run_here_is_said_each_time() -> None:
    plans, unknown = Plans({}), document()

    for _ in range(2):
        with pytest.raises(Invalid):
            plans.of(unknown)
