"""One build: install the packages, bundle the code, and word what stands in the way."""

from __future__ import annotations

from typing import Protocol

from schemas.errors import Unavailable
from schemas.npm import NpmAllow
from schemas.outcome import ErrorKind
from workers.preparation.bundler import BuildLost, BuildMistake, Bundle, Bundler
from workers.preparation.installs import Installs
from workers.preparation.npm_words import NpmFailure
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe

#: Longest module that is handed to a sandbox, in characters: every run compiles it anew.
LONGEST_CODE = 8_000_000


class Build(Protocol):
    """Makes what was never made before."""

    async def build(self, recipe: Recipe) -> Preparation: ...

    async def aclose(self) -> None: ...


class Builder:
    """Builds with npm and esbuild. Keeps nothing; who calls it does."""

    def __init__(self, *, bundler: Bundler, installs: Installs, allow: NpmAllow) -> None:
        self._bundler = bundler
        self._installs = installs
        self._allow = allow

    async def build(self, recipe: Recipe) -> Preparation:
        """Make the code, or say why it can't be made; never raises for either."""
        for name, version in recipe.dependencies:
            if why := self._allow.refusal(name, version):
                fix = self._allow.fix(name, version)
                return Flaw(kind=ErrorKind.FORBIDDEN, message=f"{why}; {fix}", lasts=Lasts.NOT)
        loader = "ts" if recipe.language == "typescript" else "js"
        try:
            if not recipe.dependencies:
                return prepared(await self._bundler.build(source=recipe.source, loader=loader))
            async with self._installs.hold(recipe.dependencies) as folder:
                names = tuple(name for name, _ in recipe.dependencies)
                return prepared(
                    await self._bundler.build(source=recipe.source, loader=loader, folder=folder, dependencies=names)
                )
        except NpmFailure as failure:
            return failure.flaw()
        except BuildLost as loss:
            return Flaw(kind=ErrorKind.LOST, message=f"the code was not built: {loss}", lasts=Lasts.NOT)
        except Unavailable as missing:
            return Flaw(kind=ErrorKind.INTERNAL, message=f"the code was not built: {missing}", lasts=Lasts.NOT)

    async def aclose(self) -> None:
        await self._bundler.aclose()


def prepared(bundle: Bundle) -> Preparation:
    """Judge what esbuild made."""
    if bundle.mistakes:
        return _flaw(bundle.mistakes)
    if len(bundle.code) > LONGEST_CODE:
        size = f"{len(bundle.code):,} characters, and at most {LONGEST_CODE:,} are allowed"
        message = f"the code and its packages are {size}; depend on less"
        return Flaw(kind=ErrorKind.INVALID_INPUT, message=message, lasts=Lasts.ALWAYS)
    return Prepared(code=bundle.code, source_map=bundle.source_map)


def _flaw(mistakes: tuple[BuildMistake, ...]) -> Flaw:
    first, others = mistakes[0], len(mistakes) - 1
    more = f" (and {others} more mistake{'s' if others > 1 else ''})" if others else ""
    if first.file is not None:
        place = f"{first.file.rpartition('node_modules/')[2]}:{first.line}:{first.column}"
        message = f"{first.message} (in {place}){more}"
        return Flaw(kind=ErrorKind.INVALID_INPUT, message=message, lasts=Lasts.ALWAYS)
    kind = ErrorKind.SYNTAX if first.is_syntax else ErrorKind.INVALID_INPUT
    message = f"SyntaxError: {first.message}" if first.is_syntax else first.message
    return Flaw(kind=kind, message=f"{message}{more}", line=first.line, column=first.column, lasts=Lasts.ALWAYS)
