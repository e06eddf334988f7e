"""What every place for commands and Python promises, walls or none: one suite for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from schemas.errors import Refused
from schemas.outcome import ErrorKind
from tests.contract.places import PLACES, opened_place
from tests.integration.box.boxes import Heard, command, ignore_output, python, shell
from workers.sandboxes.box.base import Exited, Returned, Stopped
from workers.sandboxes.commands import CommandSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=PLACES, scope="module", loop_scope="module")
async def place(request: pytest.FixtureRequest) -> AsyncIterator[CommandSandbox]:
    async with opened_place(request.param) as place:
        yield place


@pytest.fixture
def marker() -> Iterator[str]:
    """An argument that no other process of this machine has; at the end, none has it at all."""
    mark = f"flo-test-{uuid4().hex}"
    yield mark
    assert alive(mark) == []


def alive(mark: str) -> list[str]:
    """Find processes by a word of their command line, in whatever namespace they are."""
    return [line for line in map(_command_line, Path("/proc").glob("[0-9]*/cmdline")) if mark in line]


def _command_line(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


async def test_a_command_gives_its_exit_code_and_both_streams(place: CommandSandbox) -> None:
    found = await place.run(shell("echo out; echo err >&2; exit 3"), ignore_output)
    assert isinstance(found, Exited), found
    assert (found.code, found.stdout, found.stderr) == (3, b"out\n", b"err\n")


async def test_a_command_that_dies_of_a_signal_gives_minus_its_number(place: CommandSandbox) -> None:
    found = await place.run(shell("kill -9 $$"), ignore_output)
    assert isinstance(found, Exited)
    assert found.code == -9


async def test_a_program_that_is_not_there_is_answered_as_a_shell_would(place: CommandSandbox) -> None:
    found = await place.run(command("no-such-program"), ignore_output)
    assert isinstance(found, Exited)
    assert found.code == 127
    assert b"no-such-program: No such file or directory" in found.stderr


async def test_output_comes_line_by_line_while_the_program_runs(place: CommandSandbox) -> None:
    heard = Heard()
    run = asyncio.create_task(place.run(shell("echo early; exec sleep 60"), heard))
    await heard.first
    assert heard == [("stdout", b"early")]
    assert not run.done()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_stdin_of_any_size_arrives(place: CommandSandbox) -> None:
    found = await place.run(command("wc", "-c", stdin=b"x" * 3_000_000), ignore_output)
    assert isinstance(found, Exited)
    assert found.stdout.split() == [b"3000000"]


async def test_without_stdin_a_reader_meets_the_end(place: CommandSandbox) -> None:
    found = await place.run(command("cat"), ignore_output)
    assert isinstance(found, Exited)
    assert (found.code, found.stdout) == (0, b"")


async def test_files_go_in_and_come_out(place: CommandSandbox) -> None:
    order = shell(
        "mkdir out; tr a-z A-Z <data/in.txt >out/up.txt; ln -s /etc/passwd link; mkfifo pipe",
        files={"data/in.txt": b"hello", "blank": b""}, collect=("out/up.txt", "blank", "nowhere", "link", "pipe"),
    )  # fmt: skip
    found = await place.run(order, ignore_output)
    assert isinstance(found, Exited)
    assert found.files == {"out/up.txt": b"HELLO", "blank": b""}
    assert found.missing == {
        "nowhere": "No such file or directory", "link": "Too many levels of symbolic links",
        "pipe": "not a regular file",
    }  # fmt: skip


@pytest.mark.parametrize("cwd", ["a/b", "/usr"])
async def test_a_command_starts_where_it_is_told(place: CommandSandbox, cwd: str) -> None:
    found = await place.run(command("pwd", cwd=cwd), ignore_output)
    assert isinstance(found, Exited), found
    assert found.stdout.endswith(f"{cwd}\n".encode())


async def test_a_folder_to_start_in_that_is_not_there_is_told(place: CommandSandbox) -> None:
    found = await place.run(command("pwd", cwd="/nowhere"), ignore_output)
    assert isinstance(found, Exited)
    assert (found.code, found.stderr) == (126, b"flo: can't start in /nowhere: No such file or directory\n")


async def test_the_environment_is_what_the_order_says(place: CommandSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLO_API_KEY", "secret")
    found = await place.run(command("env", env={"GIVEN": "yes"}), ignore_output)
    assert isinstance(found, Exited)
    names = {line.partition(b"=")[0] for line in found.stdout.splitlines()}
    assert names - {b"LD_LIBRARY_PATH"} == {b"GIVEN", b"HOME", b"LANG", b"PATH"}


async def test_main_is_called_with_the_inputs_and_its_result_comes_back(place: CommandSandbox) -> None:
    found = await place.run_python(
        python("def main(a, b): return {'sum': a + b}", inputs={"a": 1, "b": 2, "unnamed": 3}), ignore_output
    )
    assert isinstance(found, Returned), found
    assert found.value == {"sum": 3}


async def test_an_async_main_is_awaited(place: CommandSandbox) -> None:
    source = "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    return 1"
    found = await place.run_python(python(source), ignore_output)
    assert isinstance(found, Returned)
    assert found.value == 1


async def test_what_main_prints_is_output_and_not_its_result(place: CommandSandbox) -> None:
    heard = Heard()
    source = "import sys\ndef main():\n    print('to out')\n    print('to err', file=sys.stderr)\n    return 'kept'"
    found = await place.run_python(python(source), heard)
    assert isinstance(found, Returned)
    assert found.value == "kept"
    assert sorted(heard) == [("stderr", b"to err"), ("stdout", b"to out")]


async def test_none_of_our_own_modules_are_in_the_way_of_users_code(place: CommandSandbox) -> None:
    source = "import importlib.util\ndef main(): return [n for n in ('box', 'proxy', 'workers', 'schemas', 'orjson') if importlib.util.find_spec(n)]"  # noqa: E501
    found = await place.run_python(python(source), ignore_output)
    assert isinstance(found, Returned)
    assert found.value == []


async def test_an_exception_is_told_with_the_users_own_lines(place: CommandSandbox) -> None:
    found = await place.run_python(python("def main():\n    deep()\ndef deep():\n    1 / 0\n"), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.USER
    assert found.error.message == "main.py:4: ZeroDivisionError: division by zero"
    assert found.error.details is not None
    assert "inside/python.py" not in str(found.error.details["stack"])


async def test_a_syntax_error_names_its_line(place: CommandSandbox) -> None:
    found = await place.run_python(python("def main():\n    return (\n"), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.SYNTAX
    assert found.error.details is not None
    assert found.error.details["line"] == 2


async def test_the_time_limit_ends_a_run(place: CommandSandbox) -> None:
    source = python("def main():\n    while True: pass", timeout=timedelta(seconds=0.5))
    found = await place.run_python(source, ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.TIMED_OUT
    assert found.error.details == {"limit": 500, "raise_with": "timeout_ms"}


async def test_what_was_said_before_the_time_limit_is_kept(place: CommandSandbox) -> None:
    found = await place.run(shell("echo said; sleep 60", timeout=timedelta(seconds=1)), ignore_output)
    assert isinstance(found, Stopped)
    assert found.stdout == b"said\n"


async def test_the_memory_limit_is_told_for_python(place: CommandSandbox) -> None:
    found = await place.run_python(python("def main(): return len('x' * 10**9)"), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.MEMORY_EXCEEDED
    assert found.error.details == {"limit": 64, "raise_with": "memory_mb"}


async def test_the_output_limit_ends_a_run(place: CommandSandbox) -> None:
    found = await place.run(shell("yes"), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.OUTPUT_EXCEEDED
    assert len(found.stdout) == 100_000


async def test_the_file_size_limit_is_told(place: CommandSandbox) -> None:
    found = await place.run(shell("exec dd if=/dev/zero of=big bs=1M count=9", file_size_mb=2), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.details == {"limit": 2, "raise_with": "file_size_mb"}


async def test_the_processor_limit_ends_a_run(place: CommandSandbox) -> None:
    found = await place.run(shell("while :; do :; done", cpu_seconds=1), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.TIMED_OUT
    assert found.error.details == {"limit": 1, "raise_with": "cpu_seconds"}


SURVIVORS = {
    "a child in the background": "sh -c 'sleep 61; : {mark}' &",
    "a child in a session of its own": "setsid sh -c 'sleep 62; : {mark}' &",
    "a daemon, forked twice, with no stream of ours": "(setsid sh -c 'sleep 63; : {mark}' <&- >&- 2>&- &)",
    "a child that ignores what it can": "(trap '' HUP INT TERM; exec setsid sh -c 'sleep 64; : {mark}') &",
    "one that forks on": "(setsid sh -c 'while :; do (sleep 0.01; : {mark}) & sleep 0.01; done' >/dev/null 2>&1 &)",
}


@pytest.mark.parametrize("survivor", SURVIVORS)
async def test_nothing_outlives_its_order(place: CommandSandbox, marker: str, survivor: str) -> None:
    found = await place.run(shell(SURVIVORS[survivor].format(mark=marker) + "\necho up"), ignore_output)
    assert isinstance(found, Exited), found
    assert found.stdout == b"up\n"
    assert alive(marker) == []


@pytest.mark.parametrize("survivor", SURVIVORS)
async def test_nothing_outlives_an_order_that_ran_into_its_time_limit(
    place: CommandSandbox, marker: str, survivor: str
) -> None:
    script = SURVIVORS[survivor].format(mark=marker) + "\nsleep 65"
    found = await place.run(shell(script, timeout=timedelta(seconds=0.5)), ignore_output)
    assert isinstance(found, Stopped)
    assert alive(marker) == []


async def test_cancelling_a_run_kills_all_of_it(place: CommandSandbox, marker: str) -> None:
    heard = Heard()
    run = asyncio.create_task(place.run(shell(f"setsid sh -c 'sleep 66; : {marker}' & echo up; wait"), heard))
    await heard.first
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert alive(marker) == []


async def test_twenty_orders_at_once_do_not_mix(place: CommandSandbox) -> None:
    orders = [python("def main(n): return n", inputs={"n": n}) for n in range(20)]
    found = await asyncio.gather(*(place.run_python(order, ignore_output) for order in orders))
    assert [outcome.value for outcome in found if isinstance(outcome, Returned)] == list(range(20))


async def test_nothing_of_one_work_folder_is_there_in_the_next(place: CommandSandbox) -> None:
    first = await place.run(shell("mkdir -p a/b; echo leak >a/b/leak; chmod 0 a; pwd"), ignore_output)
    found = await place.run(shell("ls -A"), ignore_output)
    assert isinstance(first, Exited)
    assert isinstance(found, Exited)
    assert found.stdout == b""


async def test_usage_tells_what_was_used(place: CommandSandbox) -> None:
    found = await place.run_python(python("def main(): return sum(range(10**6)) and None"), ignore_output)
    assert found.usage.cpu > timedelta(0)
    assert found.usage.wall > timedelta(0)
    assert found.usage.peak_memory_bytes > 1_000_000


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "./a", "a\nb", "a\0b", "a/", "x" * 2000])
async def test_a_file_name_that_is_not_plainly_below_the_work_folder_is_refused(
    place: CommandSandbox, name: str
) -> None:
    with pytest.raises(Refused, match="relative path"):
        await place.run(shell("true", files={name: b""}), ignore_output)
    with pytest.raises(Refused, match="relative path"):
        await place.run(shell("true", collect=(name,)), ignore_output)
