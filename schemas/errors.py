"""What can go wrong between Flo and the people who use it.

FloError                      every error that Flo raises on purpose; its text says what is wrong and the fix
├── SettingsError             a variable has a value that Flo does not know
├── Unavailable               a server or program that is needed is not there
├── NotFound                  no such app, flow, event or run
├── Conflict                  the request contradicts what is already so
├── Refused                   understood, but not allowed here
└── Invalid                   the request or document is wrong; carries every problem at once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class FloError(Exception):
    """Something that Flo can explain."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SettingsError(FloError):
    """A setting has a value that Flo does not know."""


class Unavailable(FloError):
    """A server or program that is needed is not there."""


class NotFound(FloError):
    """No such thing."""


class Conflict(FloError):
    """The request contradicts what is already so."""


class Refused(FloError):
    """Understood, but not allowed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake (or note) in a document or request, and its fix."""

    #: Where, as a path into the document: `nodes[2].config.code`.
    path: str
    #: What is wrong, what was given, what is allowed.
    message: str
    #: What to do about it; empty when the message already says so.
    fix: str = ""
    severity: Literal["error", "note"] = "error"


class Invalid(FloError):
    """The request or document is wrong."""

    def __init__(self, problems: Sequence[Problem], *, what: str = "document") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = [f"{p.path}: {p.message}" + (f" ({p.fix})" if p.fix else "") for p in self.problems]
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the {what}:\n" + "\n".join(lines))
