"""What the command line and the client can raise.

FloError                 everything below; its text is one sentence that names the fix
├── Mistake              the user's: a bad option, file, input or setting
│   └── NoServer         nothing answers at the server's address
├── Answered             the server said no; carries the status and every problem that it named
├── DidNotStart          a process of `flo dev` ended before the stack was up
└── RunFailed            a run ended in any state but `succeeded`; carries the run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flo.wire import Run


class FloError(Exception):
    """Something that Flo can explain."""

    #: What the `flo` command ends with: 1 when a run or a server failed, 2 for the user's mistake.
    exit_code = 1


class Mistake(FloError):
    """The user asked for something that can't be done as it was asked."""

    exit_code = 2


class NoServer(Mistake):
    """Nothing answers at the server's address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no server answers at {url}: start one with `flo dev`, or name another with --url or FLO_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a document or request."""

    #: Where, as a path into the document: `nodes[2].config.code`.
    path: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" ({self.fix})" if self.fix else "")


class Answered(FloError):
    """The server said no."""

    def __init__(self, status: int, detail: str, problems: Sequence[Problem] = ()) -> None:
        self.status = status
        self.problems = tuple(problems)
        self.exit_code = 2 if status < 500 else 1
        super().__init__("\n".join([detail, *(f"  {problem}" for problem in problems)]))


class DidNotStart(FloError):
    """A process of `flo dev` ended before the stack was up."""

    def __init__(self, name: str, how: str, last_words: Sequence[str], *, exit_code: int) -> None:
        self.exit_code = exit_code
        said = "".join(f"\n  {line}" for line in last_words)
        super().__init__(f"{name} {how} before Flo was up" + (f"; its last words:{said}" if said else ""))


class RunFailed(FloError):
    """A run ended in any state but `succeeded`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        error = run["error"]
        why = f": {error['message']}" if error else ""
        super().__init__(f"run {run['run_id']} {run['status']}{why}")
