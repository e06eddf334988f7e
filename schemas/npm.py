"""npm packages as settings and documents name them: names, versions, and which of them an operator allows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

#: https://docs.npmjs.com/cli/configuring-npm/package-json#name; what a folder or a URL is called does not match.
NAME = re.compile(r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*", re.ASCII)
#: One version as https://semver.org writes it; no range, no tag.
_EXACT = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)
_PART = re.compile(r"(\^|~|>=|<=|>|<|=)?v?(\d{1,9}|[x*])(?:\.(\d{1,9}|[x*]))?(?:\.(\d{1,9}|[x*]))?(-[0-9A-Za-z.-]+)?")

Triple: TypeAlias = tuple[int, int, int]
#: From the first (included) up to the second (not included).
Span: TypeAlias = tuple[Triple, Triple]

_END: Triple = (10**9, 0, 0)


def is_exact(version: str) -> bool:
    """Tell whether the text is one version, not a range, tag or address."""
    return _EXACT.fullmatch(version) is not None


def is_name(name: str) -> bool:
    return len(name) <= 214 and NAME.fullmatch(name) is not None


def split_spec(spec: str) -> tuple[str, str]:
    """Split `@acme/slug@1.0.0` into name and version; the version is empty when there is none."""
    name, _, version = spec[1:].partition("@")
    return spec[:1] + name, version


@dataclass(frozen=True, slots=True)
class Range:
    """A range of versions, as npm writes it: `1.2.3`, `^1.2`, `~1.2.3`, `1.x`, `>=1 <3`, `1 || 2`, `*`."""

    text: str
    spans: tuple[Span, ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """Raise ValueError when the text is no range."""
        return cls(text, tuple(_spans(part) for part in text.split("||")))

    def allows(self, version: str) -> bool:
        """Tell whether an exact version lies in the range; pre-releases only do where the range is that version."""
        found = _EXACT.fullmatch(version)
        if found is None or found[4] is not None:
            return version == self.text
        at = (int(found[1]), int(found[2]), int(found[3]))
        return any(start <= at < end for start, end in self.spans)


@dataclass(frozen=True, slots=True)
class NpmAllow:
    """The packages that code nodes may depend on."""

    ranges: tuple[tuple[str, Range], ...] = ()

    @classmethod
    def parse(cls, text: str) -> NpmAllow:
        """Read `lodash, zod@^3, @acme/slug@1.0.0`; `*` is every package. Raise ValueError that names what is wrong."""
        ranges: list[tuple[str, Range]] = []
        for item in filter(None, (item.strip() for item in text.split(","))):
            name, wanted = split_spec(item)
            if name != "*" and not is_name(name):
                raise ValueError(f'"{name}" is not the name of an npm package')
            ranges.append((name, Range.parse(wanted or "*")))
        return cls(tuple(ranges))

    def refusal(self, name: str, version: str) -> str | None:
        """Say why the package may not be used, or None when it may."""
        mine = [allowed for known, allowed in self.ranges if known in (name, "*")]
        if any(allowed.text == "*" or allowed.allows(version) for allowed in mine):
            return None
        if mine:
            texts = " or ".join(allowed.text for allowed in mine)
            return f'the npm package "{name}" is allowed here in version {texts} only; given {version}'
        known = ", ".join(sorted({known for known, _ in self.ranges})) or "none"
        return f'the npm package "{name}" is not allowed here; allowed: {known}'

    def fix(self, name: str, version: str) -> str:
        """Say what the operator can do about a refusal."""
        return f"the operator can allow it: add {name}@{version} to FLO_NPM_ALLOW"


#: What is allowed until the operator says more.
NO_PACKAGES = NpmAllow()


def _spans(text: str) -> Span:
    start, end = (0, 0, 0), _END
    # npm lets blanks stand between an operator and its version.
    for part in re.sub(r"([<>=^~])\s+", r"\1", text.strip()).split() or ["*"]:
        low, high = _span(part)
        start, end = max(start, low), min(end, high)
    return start, end


def _span(part: str) -> Span:
    found = _PART.fullmatch(part)
    if found is None:
        raise ValueError(f'"{part}" is not a version or a range like ^1.2.3')
    operator, *numbers = found.groups()[:4]
    given = _numbers(numbers)
    low = _padded(given)
    match operator:
        case ">=":
            return low, _END
        case ">":
            return (_after(given), _END) if given else (_END, _END)
        case "<":
            return (0, 0, 0), low
        case "<=":
            return (0, 0, 0), _after(given)
        case "^":
            # Up to the next change of the first number that is not zero.
            fixed = next((place + 1 for place, number in enumerate(given) if number), max(len(given), 1))
            return low, _after(given[:fixed])
        case "~":
            return low, _after(given[:2])
        case _:
            return low, _after(given)


def _numbers(texts: Iterable[str | None]) -> tuple[int, ...]:
    given: list[int] = []
    for text in texts:
        if text is None or not text.isdigit():
            break
        given.append(int(text))
    return tuple(given)


def _padded(numbers: tuple[int, ...]) -> Triple:
    first, second, third = (*numbers, 0, 0, 0)[:3]
    return first, second, third


def _after(numbers: tuple[int, ...]) -> Triple:
    """Give the first version after all that begin with these numbers."""
    return _padded((*numbers[:-1], numbers[-1] + 1)) if numbers else _END


ANY_PACKAGE = NpmAllow.parse("*")
