"""Every error answer: an RFC 9457 problem document that says what is wrong, what was given, what is allowed, the fix.

FloError                 (schemas.errors)   status by kind: see `_STATUS`
└── HttpProblem                             anything else that HTTP has a status for
    ├── Malformed        400                the body can't be read as JSON
    ├── Unauthenticated  401                no key, or not a valid one
    ├── Gone             410                it was there and is retired
    ├── TooLarge         413                the body is over the limit
    └── WrongMediaType   415                the body is of a kind that the route does not read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from schemas.errors import Conflict, FloError, Invalid, NotFound, Problem, Refused, Unavailable
from schemas.json import dumps
from schemas.wording import join_path, reworded, short

MEDIA_TYPE = "application/problem+json"

#: Seconds after which a client may try again when SQL or the broker is away.
RETRY_AFTER = 2


class HttpProblem(FloError):
    """The request can't be answered."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST

    def __init__(self, message: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class Malformed(HttpProblem):
    """The body can't be read."""


class Unauthenticated(HttpProblem):
    """The request carries no valid key."""

    status = HTTPStatus.UNAUTHORIZED


class Gone(HttpProblem):
    """It was here, and was retired."""

    status = HTTPStatus.GONE


class TooLarge(HttpProblem):
    """The body is too large."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class WrongMediaType(HttpProblem):
    """The body is of a kind that is not read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class ProblemItem(BaseModel):
    """One of several mistakes."""

    path: str = Field(description="where, e.g. `nodes[2].config.code`")
    message: str
    fix: str


class ProblemDocument(BaseModel):
    """What every error answer looks like (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:flo:problem:not-found",
                "title": "Not Found",
                "status": 404,
                "detail": 'app "shop" has no event "order"; did you mean "orders"?',
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemItem] | None = None


_STATUS: tuple[tuple[type[FloError], HTTPStatus], ...] = (
    (Invalid, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (Refused, HTTPStatus.FORBIDDEN),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


def problem_response(
    status: int,
    detail: str,
    *,
    errors: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Write a problem document; `members` are extra fields, e.g. a run id."""
    phrase = HTTPStatus(status).phrase
    document: dict[str, Any] = {
        "type": f"urn:flo:problem:{phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": int(status),
        "detail": detail,
        **(members or {}),
    }
    if errors:
        document["errors"] = [{"path": one.path, "message": one.message, "fix": one.fix} for one in errors]
    return Response(dumps(document), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def response_of(error: FloError) -> Response:
    """Give the answer that an error stands for."""
    if isinstance(error, HttpProblem):
        return problem_response(error.status, str(error), headers=error.headers)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, Invalid):
        return problem_response(status, str(error), errors=error.problems)
    return problem_response(
        status, str(error), headers={"Retry-After": str(RETRY_AFTER)} if isinstance(error, Unavailable) else None
    )


def install_problems(app: FastAPI) -> None:
    """Make every error that a route raises a problem document."""
    app.add_exception_handler(FloError, _flo_error)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)
    app.add_exception_handler(HTTPException, _http_error)


async def _flo_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FloError)
    return response_of(error)


async def _wrong_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        Problem(
            path=join_path("", [str(step) for step in mistake["loc"][1:]] or [str(mistake["loc"][0])]),
            message=f"{reworded(mistake['msg'])}; given {short(mistake.get('input'))}",
            fix=f"correct the {mistake['loc'][0]} parameter",
        )
        for mistake in error.errors()
    ]
    return response_of(Invalid(problems, what="request"))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            detail = f"there is no {request.method} {request.url.path}; /docs lists every route"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = _methods_at(request) or (error.headers or {}).get("Allow", "")
            detail = f"{request.url.path} does not know {request.method}; allowed: {allowed}"
            return problem_response(error.status_code, detail, headers={"Allow": allowed})
        case _:
            detail = str(error.detail)
    return problem_response(error.status_code, detail, headers=error.headers)


def _methods_at(request: Request) -> str:
    """List the methods of every route on this path; the router itself names only the first one's."""
    paths = request.app.openapi()["paths"].items()
    here = [operations for path, operations in paths if compile_path(path)[0].match(request.url.path)]
    return ", ".join(sorted({method.upper() for operations in here for method in operations}))
