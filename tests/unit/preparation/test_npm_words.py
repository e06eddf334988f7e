"""npm's errors in one sentence: which package and why."""

from __future__ import annotations

import pytest

from schemas.outcome import ErrorKind
from workers.preparation.npm_words import NpmFailure, explain
from workers.preparation.recipe import Lasts

#: What npm 11 says, shortened: code, summary, detail, and what becomes of it.
SAID = [
    (
        "E404",
        "Not Found - GET https://registry.example/@acme%2fnope",
        "The requested resource '@acme/nope@1.0.0' could not be found or you do not have permission to access it.",
        'the package "@acme/nope@1.0.0" is not in the registry (E404); check its name, and whether it is private',
        (ErrorKind.INVALID_INPUT, Lasts.A_WHILE),
    ),
    (
        "ETARGET",
        "No matching version found for ms@99.0.0.",
        "",
        'the package "ms@99.0.0" has no such version (ETARGET); choose one that `npm view ms versions` lists',
        (ErrorKind.INVALID_INPUT, Lasts.A_WHILE),
    ),
    (
        "ECONNREFUSED",
        "FetchError: request to http://127.0.0.1:1/ms failed, reason: connect ECONNREFUSED 127.0.0.1:1",
        "",
        'the registry could not be reached for the package "ms" (ECONNREFUSED); try again, or check this machine\'s '
        "network",
        (ErrorKind.UPSTREAM, Lasts.NOT),
    ),
    (
        "ENOTFOUND",
        "request to http://nosuch.invalid/@acme%2fslug failed, reason: getaddrinfo ENOTFOUND nosuch.invalid",
        "",
        'the registry could not be reached for the package "@acme/slug" (ENOTFOUND); try again, or check this '
        "machine's network",
        (ErrorKind.UPSTREAM, Lasts.NOT),
    ),
    (
        "EINTEGRITY",
        "Verification failed while extracting ms@2.1.3:",
        "",
        'the package "ms@2.1.3" is not what the registry says it should be (EINTEGRITY): its checksum differs; '
        "try again",
        (ErrorKind.UPSTREAM, Lasts.NOT),
    ),
    (
        "ERESOLVE",
        "unable to resolve dependency tree",
        'Found: react@16.0.0\n\nCould not resolve dependency:\npeer react@"^18.2.0" from react-dom@18.2.0\n',
        'the packages do not fit together (ERESOLVE): react-dom@18.2.0 needs react@"^18.2.0"; change one of the '
        "versions",
        (ErrorKind.INVALID_INPUT, Lasts.A_WHILE),
    ),
    (
        "ENOSPC",
        "ENOSPC: no space left on device, write",
        "",
        "the files of a package could not be written (ENOSPC); check this machine's disk",
        (ErrorKind.INTERNAL, Lasts.NOT),
    ),
    (
        "",
        "",
        "",
        "a package could not be installed (exit code 7)",
        (ErrorKind.UPSTREAM, Lasts.NOT),
    ),
]


@pytest.mark.parametrize(
    ("code", "summary", "detail", "reason", "fate"), SAID, ids=[said[0] or "mute" for said in SAID]
)
def test_each_error_names_its_package_and_its_reason(
    code: str, summary: str, detail: str, reason: str, fate: tuple[ErrorKind, Lasts]
) -> None:
    failure = explain({"code": code, "summary": summary, "detail": detail}, exit_code=7)

    assert str(failure) == reason
    assert (failure.flaw().kind, failure.flaw().lasts) == fate


def test_an_unknown_error_is_repeated_without_the_registrys_address() -> None:
    failure = explain({"code": "EODD", "summary": "at https://user:secret@host/x it broke", "detail": ""}, exit_code=1)

    assert "secret" not in str(failure)
    assert str(failure).endswith("(EODD): at the registry it broke")


def test_only_trouble_with_the_disk_is_worth_another_folder() -> None:
    assert NpmFailure("EROFS", "").is_disk
    assert not NpmFailure("E404", "").is_disk
