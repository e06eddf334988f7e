"""Check what an order says before anything is made of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.errors import Refused

_LONGEST_NAME = 1024
_MOST_FILES = 1000


def check_files(names: Iterable[str], *, what: str) -> None:
    """Refuse file names that are not plainly a place below the work folder."""
    seen: set[str] = set()
    for name in names:
        fault = _fault(name)
        if fault:
            raise Refused(f"{what} {name!r} {fault}; give a relative path such as data/in.csv")
        seen.add(name)
    if len(seen) > _MOST_FILES:
        raise Refused(f"{len(seen):,} {what}s are too many; at most {_MOST_FILES:,} are allowed")
    for name in seen:
        parts = name.split("/")
        if any("/".join(parts[:end]) in seen for end in range(1, len(parts))):
            raise Refused(f"{what} {name!r} lies below another file of the same order")


def _fault(name: str) -> str:
    if not name or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        return f"is empty or longer than {_LONGEST_NAME} bytes"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has a control character"
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "is not text"
    if name.startswith("/"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty part, `.` or `..`"
    return ""


def check_folder(name: str) -> None:
    """Refuse a folder to start in that leads out of the work folder by accident; an absolute one says what it means."""
    fault = _fault(name.lstrip("/")) if name else ""
    if fault:
        raise Refused(f"the folder {name!r} to start in {fault}; give one such as data/in, or an absolute one")


def check_argv(argv: Iterable[str]) -> None:
    words = list(argv)
    if not words or not words[0]:
        raise Refused("the command is empty; give a program and its arguments")
    for word in words:
        if "\0" in word:
            raise Refused(f"the argument {word!r} has a NUL, which no program can be given")


def check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise Refused(f"the variable {name!r} can't be set: a name has no `=`, and neither part a NUL")
