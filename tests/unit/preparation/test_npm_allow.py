"""Which packages an operator allows, written as npm writes ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError
from schemas.npm import NpmAllow, Range, is_exact, is_name, split_spec
from schemas.settings import load_settings


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        ("1.2.3", ["1.2.3"], ["1.2.4", "1.2.3-beta"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0", "1.5.0-rc.1"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "0.2.2"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^1", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.9"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0"]),
        ("~1", ["1.9.0"], ["2.0.0"]),
        ("1.x", ["1.0.0", "1.9.9"], ["2.0.0"]),
        ("1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
        (">=1.2 <3", ["1.2.0", "2.9.9"], ["1.1.9", "3.0.0"]),
        (">= 1.2 < 3", ["2.0.0"], ["3.0.0"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        ("<=1.2", ["1.2.9", "0.0.1"], ["1.3.0"]),
        ("1 || ^3.1.0", ["1.5.0", "3.1.0"], ["2.0.0", "3.0.9"]),
        ("*", ["0.0.1", "99.0.0"], ["1.0.0-beta"]),
    ],
)
def test_a_range_means_what_npm_means_by_it(range_: str, inside: list[str], outside: list[str]) -> None:
    parsed = Range.parse(range_)

    assert [version for version in inside if not parsed.allows(version)] == []
    assert [version for version in outside if parsed.allows(version)] == []


@given(st.tuples(*[st.integers(0, 50)] * 3), st.tuples(*[st.integers(0, 50)] * 3))
def test_a_caret_never_reaches_the_next_breaking_version(low: tuple[int, ...], other: tuple[int, ...]) -> None:
    allows = Range.parse("^" + ".".join(map(str, low))).allows(".".join(map(str, other)))
    fixed = next((place for place, number in enumerate(low) if number), 2)

    assert allows == (other >= low and other[: fixed + 1] == low[: fixed + 1])


@pytest.mark.parametrize(
    "version", ["^1.2.3", "1.2", "latest", "", "1.2.3 || 2.0.0", "file:../x", "https://a/b.tgz", "1.2.3\n"]
)
def test_only_one_version_is_exact(version: str) -> None:
    assert not is_exact(version)


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "@a", "a b", "A", ".bin", "@a/../b", "file:x", "", "x" * 215])
def test_what_could_be_a_path_or_an_address_is_no_name(name: str) -> None:
    assert not is_name(name)


def test_a_name_keeps_its_scope_when_its_version_is_split_off() -> None:
    assert split_spec("@acme/slug@1.0.0") == ("@acme/slug", "1.0.0")
    assert split_spec("@acme/slug") == ("@acme/slug", "")


def test_nothing_is_allowed_until_the_operator_says_so() -> None:
    assert NpmAllow.parse("").refusal("ms", "2.1.3") == 'the npm package "ms" is not allowed here; allowed: none'


def test_a_package_is_allowed_by_name_and_in_the_named_versions_only() -> None:
    allow = NpmAllow.parse("lodash, @acme/slug@^1, zod@3.x")

    assert allow.refusal("lodash", "1.0.0") is None
    assert allow.refusal("@acme/slug", "1.9.0") is None
    assert allow.refusal("zod", "4.0.0") == 'the npm package "zod" is allowed here in version 3.x only; given 4.0.0'
    assert allow.refusal("ms", "2.1.3") == 'the npm package "ms" is not allowed here; allowed: @acme/slug, lodash, zod'


def test_a_star_allows_every_package() -> None:
    assert NpmAllow.parse("*").refusal("anything", "1.0.0-beta.1") is None


def test_a_wrong_setting_names_what_is_wrong_in_it() -> None:
    with pytest.raises(SettingsError, match=r'FLO_NPM_ALLOW is .*"latest" is not a version or a range'):
        load_settings({"FLO_NPM_ALLOW": "ms@latest"})
