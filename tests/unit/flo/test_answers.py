from __future__ import annotations

import json

import pytest

from flo import answers
from flo.errors import Answered


def test_an_answer_is_its_json() -> None:
    assert answers.read(200, b'{"run_id": "run_1"}') == {"run_id": "run_1"}


def test_an_answer_without_a_body_is_none() -> None:
    assert answers.read(204, b"") is None


def test_a_problem_document_becomes_its_sentence() -> None:
    body = json.dumps({"type": "urn:x", "title": "Not Found", "status": 404, "detail": "there is no run x"})

    with pytest.raises(Answered, match=r"^there is no run x$") as refused:
        answers.read(404, body.encode())

    assert refused.value.status == 404
    assert refused.value.exit_code == 2


def test_every_mistake_of_a_problem_document_is_listed_once_with_its_place_and_fix() -> None:
    errors = [{"path": "nodes[0].id", "message": "is empty", "fix": "name it"}]
    body = json.dumps({"detail": "1 problem in the flow:\nnodes[0].id: is empty (name it)", "errors": errors})

    refusal = answers.refusal(422, body.encode())

    assert str(refusal) == "1 problem in the flow:\n  nodes[0].id: is empty (name it)"


def test_a_fault_of_the_server_is_not_the_users_mistake() -> None:
    assert answers.refusal(500, b'{"detail": "it broke"}').exit_code == 1


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"[1]", b'{"errors": 3}', b"\xff\xfe"])
def test_what_is_no_problem_document_is_quoted(body: bytes) -> None:
    assert str(answers.refusal(502, body)).startswith("the server answered 502")
