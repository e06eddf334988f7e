"""The caches on disk: what is broken is built anew, what is old makes room."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.outcome import ErrorKind
from workers.preparation.bundler import BuildLost, Bundler
from workers.preparation.cache import DiskCache
from workers.preparation.installs import Installs
from workers.preparation.locks import FileLock
from workers.preparation.memory import A_WHILE
from workers.preparation.preparer import CachingPreparer
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe

RECIPE = Recipe("export default () => 1", "typescript")
NOW = datetime(2026, 11, 21, tzinfo=UTC)


class ScriptedBuild:
    """Builds what it is told to, and knows how often."""

    def __init__(self, answer: Preparation | None = None) -> None:
        self.answer = answer or Prepared("code", "map")
        self.count = 0
        self.opened = asyncio.Event()
        self.opened.set()

    async def build(self, recipe: Recipe) -> Preparation:
        self.count += 1
        await self.opened.wait()
        return self.answer

    async def aclose(self) -> None:
        return


def preparer(folder: Path, build: ScriptedBuild, now: datetime = NOW) -> CachingPreparer:
    """A process of its own, as far as memory goes."""
    return CachingPreparer(build, cache=DiskCache(folder, max_bytes=10**6), runtime="test", now=lambda: now)


def entries(folder: Path) -> list[Path]:
    return [path for path in (folder / "entries").rglob("*") if path.is_file()]


async def test_one_process_builds_and_the_next_reads(tmp_path: Path) -> None:
    build = ScriptedBuild()

    first = await preparer(tmp_path, build).prepare(RECIPE)
    second = await preparer(tmp_path, build).prepare(RECIPE)

    assert first == second == Prepared("code", "map")
    assert build.count == 1


async def test_asking_together_in_one_process_builds_once(tmp_path: Path) -> None:
    build = ScriptedBuild()
    one = preparer(tmp_path, build)

    await asyncio.gather(*(one.prepare(RECIPE) for _ in range(10)))

    assert build.count == 1


async def test_one_who_stops_waiting_does_not_take_the_build_from_the_others(tmp_path: Path) -> None:
    build = ScriptedBuild()
    build.opened.clear()
    one = preparer(tmp_path, build)
    impatient, patient = (asyncio.create_task(one.prepare(RECIPE)) for _ in range(2))
    await asyncio.sleep(0)

    impatient.cancel()
    build.opened.set()

    assert await patient == Prepared("code", "map")
    assert build.count == 1


@pytest.mark.parametrize("damage", [b"", b"x", b"0" * 64 + b"\n{}", b"\xff" * 500])
async def test_an_entry_that_is_broken_is_built_anew(tmp_path: Path, damage: bytes) -> None:
    build = ScriptedBuild()
    await preparer(tmp_path, build).prepare(RECIPE)
    (entry,) = entries(tmp_path)
    entry.write_bytes(damage)

    again = await preparer(tmp_path, build).prepare(RECIPE)
    await preparer(tmp_path, build).prepare(RECIPE)

    assert again == Prepared("code", "map")
    assert build.count == 2


async def test_an_entry_that_is_cut_short_is_built_anew(tmp_path: Path) -> None:
    build = ScriptedBuild()
    await preparer(tmp_path, build).prepare(RECIPE)
    (entry,) = entries(tmp_path)
    os.truncate(entry, entry.stat().st_size - 1)

    await preparer(tmp_path, build).prepare(RECIPE)

    assert build.count == 2


@pytest.mark.parametrize(("lasts", "builds"), [(Lasts.ALWAYS, 1), (Lasts.A_WHILE, 1), (Lasts.NOT, 2)])
async def test_a_failed_build_is_kept_unless_the_next_may_go_well(tmp_path: Path, lasts: Lasts, builds: int) -> None:
    flaw = Flaw(kind=ErrorKind.INVALID_INPUT, message="no", lasts=lasts)
    build = ScriptedBuild(flaw)

    assert await preparer(tmp_path, build).prepare(RECIPE) == flaw
    assert await preparer(tmp_path, build).prepare(RECIPE) == flaw

    assert build.count == builds


async def test_a_missing_version_is_looked_for_again_after_a_while(tmp_path: Path) -> None:
    build = ScriptedBuild(Flaw(kind=ErrorKind.INVALID_INPUT, message="no such version", lasts=Lasts.A_WHILE))
    await preparer(tmp_path, build).prepare(RECIPE)
    build.answer = Prepared("published since", "map")

    later = await preparer(tmp_path, build, NOW + A_WHILE + timedelta(seconds=1)).prepare(RECIPE)

    assert later == Prepared("published since", "map")


async def test_what_was_used_longest_ago_makes_room_on_disk(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=10_000)
    keys = [f"{number:02}" * 32 for number in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.write(key, b"x" * 3000)
        os.utime(tmp_path / "entries" / key[:2] / key, (age, age))
    cache.read(keys[0])

    cache.write(keys[3], b"x" * 3000)

    assert [key[:2] for key in keys if cache.read(key) is not None] == ["00", "03"]


async def test_a_lock_goes_to_the_next_and_leaves_no_file(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take()
    assert not second.take()

    waiting = asyncio.create_task(second.__aenter__())
    first.release()
    await waiting
    second.release()

    assert not (tmp_path / "lock").exists()


class CountedInstalls:
    """Installs a made-up package of a given size, and counts."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, folder: Path, *specs: str, cache: Path | None = None) -> None:
        self.count += 1
        (folder / "node_modules" / "tiny").mkdir(parents=True)
        (folder / "node_modules" / "tiny" / "index.js").write_text("x" * 1000)


@pytest.fixture
def install() -> CountedInstalls:
    return CountedInstalls()


async def test_an_install_that_lost_a_file_is_done_again(tmp_path: Path, install: CountedInstalls) -> None:
    installs = Installs(tmp_path, install=install, max_bytes=10**6)
    async with installs.hold((("tiny", "1.0.0"),)) as folder:
        file = folder / "node_modules" / "tiny" / "index.js"
    async with installs.hold((("tiny", "1.0.0"),)):
        assert install.count == 1
    file.unlink()

    async with installs.hold((("tiny", "1.0.0"),)):
        assert file.exists()
    assert install.count == 2


async def test_old_installs_make_room_but_not_those_in_use(tmp_path: Path, install: CountedInstalls) -> None:
    installs = Installs(tmp_path, install=install, max_bytes=2500)
    async with installs.hold((("tiny", "1.0.0"),)) as used:
        async with installs.hold((("tiny", "2.0.0"),)) as old:
            pass
        async with installs.hold((("tiny", "3.0.0"),)) as new:
            assert (used.exists(), old.exists(), new.exists()) == (True, False, True)


async def test_the_bundler_rests_when_nothing_is_to_be_built_and_wakes_again() -> None:
    bundler = Bundler(rest=timedelta(0))
    first = await bundler.build(source="export default 1", loader="ts")
    rests = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, lambda: rests.set_result(not bundler.is_awake))
    went_to_rest = await rests

    second = await bundler.build(source="export default 1", loader="ts")
    await bundler.aclose()

    assert went_to_rest
    assert first == second


async def test_a_build_that_takes_too_long_is_lost_and_the_next_is_built() -> None:
    hasty, bundler = Bundler(longest=timedelta(0)), Bundler()
    with pytest.raises(BuildLost, match="longer than 0 s"):
        await hasty.build(source="export default 1", loader="ts")

    assert (await bundler.build(source="export default 1", loader="ts")).mistakes == ()

    await asyncio.gather(hasty.aclose(), bundler.aclose())
