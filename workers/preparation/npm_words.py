"""Turns npm's error into one sentence: which package, why, and what to do; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from schemas.npm import split_spec
from schemas.outcome import ErrorKind
from workers.preparation.recipe import Flaw, Lasts

_SPEC = re.compile(r"((?:@[\w~.-]+/)?[\w~-][\w~.-]*)@([^\s'\",;]+)")
_NETWORK = frozenset(
    [
        *("ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"),
        *("EPIPE", "ERR_SOCKET_TIMEOUT", "ESOCKETTIMEDOUT", "FETCH_ERROR", "ENOTCACHED"),
    ]
)
_DISK = frozenset(["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EMFILE", "EIO"])


class NpmFailure(Exception):
    """npm did not install what it was asked for."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        #: npm's own code: E404, ETARGET, ECONNREFUSED, ...
        self.code = code

    @property
    def is_disk(self) -> bool:
        """Whether another folder may do."""
        return self.code in _DISK

    def flaw(self) -> Flaw:
        """Say whose fault it is, and how long it stays so."""
        message = f"npm install failed: {self}"
        if self.code in ("E404", "ETARGET", "ENOVERSIONS"):
            return Flaw(kind=ErrorKind.INVALID_INPUT, message=message, lasts=Lasts.A_WHILE)
        if self.code in ("ERESOLVE", "EBADPLATFORM", "EALLOWGIT"):
            return Flaw(kind=ErrorKind.INVALID_INPUT, message=message, lasts=Lasts.A_WHILE)
        if self.is_disk:
            return Flaw(kind=ErrorKind.INTERNAL, message=message, lasts=Lasts.NOT)
        return Flaw(kind=ErrorKind.UPSTREAM, message=message, lasts=Lasts.NOT)


def explain(error: Mapping[str, str], *, exit_code: int) -> NpmFailure:
    """Word npm's `{code, summary, detail}`; the registry's address, which may be private, is left out."""
    code, text = error["code"], f"{error['summary']}\n{error['detail']}"
    package = _package(text)
    return NpmFailure(code, _reason(code, package, error, exit_code))


def _reason(code: str, package: str, error: Mapping[str, str], exit_code: int) -> str:
    which = f'the package "{package}"' if package else "a package"
    if code == "E404":
        return f"{which} is not in the registry (E404); check its name, and whether it is private"
    if code in ("ETARGET", "ENOVERSIONS"):
        name = split_spec(package)[0] or "it"
        return f"{which} has no such version ({code}); choose one that `npm view {name} versions` lists"
    if code == "ERESOLVE":
        wants = re.search(r"peer (\S+) from (\S+)", error["detail"])
        clash = f"{wants[2]} needs {wants[1]}" if wants else "their peer dependencies contradict each other"
        return f"the packages do not fit together (ERESOLVE): {clash}; change one of the versions"
    if code == "EINTEGRITY":
        return f"{which} is not what the registry says it should be (EINTEGRITY): its checksum differs; try again"
    if code in ("E401", "E403", "ENEEDAUTH", "EOTP"):
        return f"the registry refuses {which} ({code}); the operator must give this machine's npm access to it"
    if code == "EALLOWGIT":
        return f"{which} comes from a git repository, which is not allowed; use one from the registry"
    if code == "EBADPLATFORM":
        return f"{which} is made for another kind of machine (EBADPLATFORM)"
    if code in _NETWORK or code.startswith(("ERR_SSL", "CERT_", "SELF_SIGNED", "UNABLE_TO_", "E5")):
        return f"the registry could not be reached for {which} ({code}); try again, or check this machine's network"
    if code in _DISK:
        return f"the files of {which} could not be written ({code}); check this machine's disk"
    said = re.sub(r"https?://\S+", "the registry", error["summary"].split("\n", 1)[0])[:200]
    return f"{which} could not be installed ({code or f'exit code {exit_code}'}){': ' + said if said else ''}"


def _package(text: str) -> str:
    """Find which package npm speaks of: `name@version`, or the last part of the address that it asked for."""
    spec = _SPEC.search(re.sub(r"https?://\S+", "", text))
    if spec is not None and not spec[2].startswith("undefined"):
        return spec[0].rstrip(".:")
    address = re.search(r"https?://\S*?/((?:@[^/\s]+(?:/|%2[fF]))?[^/\s,]+)(?=[\s,]|$)", text)
    return unquote(address[1]) if address else ""
