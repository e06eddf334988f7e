"""npm packages in code nodes: from a real registry, and from folders where the package itself is the point."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from prepared_flows import SMALL, Flows

from schemas.errors import Invalid
from schemas.npm import NpmAllow
from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.settings import load_settings
from workers.preparation.build import Builder
from workers.preparation.bundler import Bundler
from workers.preparation.installs import Installs
from workers.preparation.npm import Npm
from workers.preparation.npm_words import NpmFailure
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, CodeReturned
from workers.sandboxes.v8 import V8Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

USES_MS = "import ms from 'ms'; export default ({text}) => ms(text)"
ANY = NpmAllow.parse("*")


def flaw_of(preparation: Preparation) -> Flaw:
    assert isinstance(preparation, Flaw), preparation
    return preparation


async def build_with(folder: Path, source: str, packages: list[Path], *, allow: NpmAllow = ANY) -> Preparation:
    """Build source that depends on local packages, copied into place as npm would."""

    async def copy(folder: Path, *specs: str, cache: Path | None = None) -> None:
        for package in packages:
            await asyncio.to_thread(shutil.copytree, package, folder / "node_modules" / package.name, symlinks=True)

    installs = Installs(folder / "npm", install=copy, max_bytes=10**9)
    builder = Builder(bundler=Bundler(), installs=installs, allow=allow)
    try:
        names = tuple((package.name, "1.0.0") for package in packages)
        return await builder.build(Recipe(source, "javascript", names))
    finally:
        await builder.aclose()


async def run_in(v8: V8Pool, source: str) -> CodeOutcome:
    order = CodeOrder(source=source, inputs={}, app="app", timeout=timedelta(seconds=10), memory_mb=64)
    return await v8.run(order, lambda level, message: None)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("source", [USES_MS, "const ms = require('ms'); module.exports = ({text}) => ms(text)"])
async def test_javascript_uses_a_package(flows: Flows, source: str) -> None:
    outcome = await flows.run("code.javascript", {"text": "1h"}, code=source, dependencies=SMALL)

    assert outcome == Succeeded(result={"output": 3_600_000})


@pytest.mark.usefixtures("registry")
async def test_an_error_in_a_package_is_placed_in_the_users_code_with_the_packages_lines_above(flows: Flows) -> None:
    source = "import ms from 'ms'\n\nexport default () =>\n  ms(Symbol.iterator)"

    outcome = await flows.run("code.typescript", code=source, dependencies=SMALL)

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.USER
    assert outcome.error.message.startswith("a.ts:4:3: ")
    assert outcome.error.details is not None
    assert "ms/index.js:" in str(outcome.error.details["stack"])


@pytest.mark.usefixtures("registry")
async def test_a_package_that_does_not_exist_is_named(flows: Flows) -> None:
    missing = {"flo-there-is-no-such-package": "1.0.0"}

    outcome = await flows.run("code.javascript", code=USES_MS, dependencies=missing)

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INVALID_INPUT
    assert outcome.error.message == (
        'a.js: npm install failed: the package "flo-there-is-no-such-package@1.0.0" is not in the registry (E404); '
        "check its name, and whether it is private"
    )


@pytest.mark.usefixtures("registry")
async def test_a_version_that_does_not_exist_is_named(flows: Flows) -> None:
    outcome = await flows.run("code.javascript", code=USES_MS, dependencies={"ms": "99.0.0"})

    assert isinstance(outcome, Failed)
    assert 'the package "ms@99.0.0" has no such version (ETARGET)' in outcome.error.message


async def test_a_registry_that_does_not_answer_is_the_networks_fault_and_worth_another_try(tmp_path: Path) -> None:
    nowhere = Npm(options=["--registry=http://127.0.0.1:1", "--fetch-retries=0", f"--cache={tmp_path / 'empty'}"])
    installs = Installs(tmp_path / "npm", install=nowhere.install, max_bytes=10**9)
    builder = Builder(bundler=Bundler(), installs=installs, allow=ANY)

    flaw = flaw_of(await builder.build(Recipe(USES_MS, "javascript", (("ms", "2.1.3"),))))

    assert (flaw.kind, flaw.lasts) == (ErrorKind.UPSTREAM, Lasts.NOT)
    assert 'the registry could not be reached for the package "ms" (ECONNREFUSED)' in flaw.message


async def test_an_npm_that_nobody_waits_for_any_more_is_killed(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"private": true, "dependencies": {"ms": "2.1.3"}}')
    asked: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
    silent = await asyncio.start_server(lambda reader, writer: asked.put_nowait(reader), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    npm = Npm(options=[f"--registry={address}", f"--cache={tmp_path / 'cache'}"])
    waiting = asyncio.create_task(npm.install(tmp_path))
    question = await asked.get()

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await question.read()  # to its end, which comes when npm is gone
    assert question.at_eof()
    silent.close()


async def test_an_npm_that_takes_too_long_is_killed_and_named(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"private": true}')

    with pytest.raises(NpmFailure, match=r"npm took longer than 0\.001 s"):
        await Npm(longest=timedelta(milliseconds=1)).install(tmp_path)


async def test_packages_are_refused_at_push_until_the_operator_allows_them(flows: Flows) -> None:
    flows._settings = load_settings({"FLO_NPM_ALLOW": "zod@^3"})

    with pytest.raises(Invalid) as refused:
        await flows.run("code.javascript", code=USES_MS, dependencies={"ms": "2.1.3"})

    (problem,) = refused.value.problems
    assert problem.path == "nodes[0].config.dependencies.ms"
    assert problem.message == 'node "a": the npm package "ms" is not allowed here; allowed: zod'
    assert problem.fix == "the operator can allow it: add ms@2.1.3 to FLO_NPM_ALLOW"


@pytest.mark.parametrize(
    ("dependencies", "said"),
    [
        ({"ms": "^2.0.0"}, '"ms" needs one exact version'),
        ({"ms": "latest"}, '"ms" needs one exact version'),
        ({"ms": "file:../../etc"}, '"ms" needs one exact version'),
        ({"../ms": "1.0.0"}, '"../ms" is not the name of an npm package'),
        ({"MS": "1.0.0"}, '"MS" is not the name of an npm package'),
    ],
)
async def test_a_dependency_that_is_no_package_in_one_version_is_refused_at_push(
    flows: Flows, dependencies: dict[str, str], said: str
) -> None:
    with pytest.raises(Invalid, match="1 problem") as refused:
        await flows.run("code.javascript", code=USES_MS, dependencies=dependencies)

    assert said in str(refused.value)


async def test_a_worker_refuses_what_its_own_operator_does_not_allow(
    tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    package = make_package("nice", {"index.js": "module.exports = 1"})

    flaw = flaw_of(await build_with(tmp_path, "import 'nice'", [package], allow=NpmAllow.parse("zod")))

    assert flaw.kind is ErrorKind.FORBIDDEN
    assert "FLO_NPM_ALLOW" in flaw.message


async def test_a_package_that_needs_node_is_named_with_what_it_needs(
    tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    package = make_package("needy", {"index.js": "const fs = require('node:fs')\nmodule.exports = fs"})

    flaw = flaw_of(await build_with(tmp_path, "import needy from 'needy'; export default () => needy", [package]))

    assert flaw.kind is ErrorKind.INVALID_INPUT
    assert flaw.message == (
        'The package "needy" needs "node:fs", which is part of Node; code runs in plain V8 (in needy/index.js:1:20)'
    )


async def test_a_package_that_may_do_without_node_does(
    tmp_path: Path, make_package: Callable[..., Path], v8: V8Pool
) -> None:
    text = "let fs; try { fs = require('fs') } catch { fs = 'none' }\nmodule.exports = typeof process + fs"
    package = make_package("easy", {"index.js": text})

    built = await build_with(tmp_path, "import easy from 'easy'; export default () => easy", [package])

    assert isinstance(built, Prepared)
    assert await run_in(v8, built.code) == CodeReturned("undefinednone")


@pytest.mark.parametrize(
    "wanted", ["../../../../../../../../../etc/hostname", "/etc/hostname", "./link.txt", "./linked/hostname"]
)
async def test_a_package_can_not_bundle_files_from_outside_its_folder(
    tmp_path: Path, make_package: Callable[..., Path], wanted: str
) -> None:
    package = make_package(
        "nosy", {"index.js": f"import text from '{wanted}' with {{type: 'text'}}\nexport default text"}
    )
    (package / "link.txt").symlink_to("/etc/hostname")
    (package / "linked").symlink_to("/etc")

    flaw = flaw_of(await build_with(tmp_path, "import nosy from 'nosy'; export default () => nosy", [package]))

    assert flaw.message.startswith("A package may not import files from outside its folder (in nosy/index.js:1:")


async def test_a_source_map_that_a_package_names_is_not_opened(
    tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    package = make_package("endless", {"index.js": "module.exports = 1\n//# sourceMappingURL=/dev/zero\n"})

    built = await build_with(tmp_path, "import one from 'endless'; export default () => one", [package])

    assert isinstance(built, Prepared)


async def test_a_package_that_tampers_with_prototypes_reaches_no_host_and_no_other_run(
    tmp_path: Path, make_package: Callable[..., Path], v8: V8Pool
) -> None:
    evil = """
    for (const proto of [Object, Array, String, Promise, Function, RegExp, Map]) {
      for (const key of Object.getOwnPropertyNames(proto.prototype)) {
        try { if (key !== 'constructor') proto.prototype[key] = () => { throw new Error('tampered') } } catch {}
      }
    }
    JSON.stringify = JSON.parse = () => 'forged';
    Object.prototype.value = Object.prototype.kind = 'forged';
    export default () => (() => {}).constructor.constructor('return typeof process + typeof require')();
    """
    package = make_package("evil", {"index.js": evil}, type="module")
    built = await build_with(tmp_path, "import run from 'evil'; export default () => ({got: run()})", [package])
    assert isinstance(built, Prepared)

    outcome = await run_in(v8, built.code)

    assert outcome == CodeReturned({"got": "undefinedundefined"}) or isinstance(outcome, CodeFailed)
    honest = await run_in(v8, "export default () => JSON.stringify({kind: [1, 2].map(n => n + 1)})")
    assert honest == CodeReturned('{"kind":[2,3]}')


@pytest.mark.parametrize(("scripts", "ran"), [("deny", False), ("allow", True)])
async def test_a_packages_scripts_run_only_if_the_operator_allows_them(
    tmp_path: Path, make_package: Callable[..., Path], scripts: Literal["deny", "allow"], ran: bool
) -> None:
    package = make_package("scripted", {"index.js": "1"}, scripts={"postinstall": "echo ran > ran.txt"})
    (tmp_path / "package.json").write_text('{"private": true}')

    await Npm(scripts=scripts).install(tmp_path, "--install-links", str(package))

    assert (tmp_path / "node_modules" / "scripted" / "ran.txt").exists() == ran


async def test_npm_sees_nothing_of_this_process_but_what_it_is_configured_by(
    tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    package = make_package("curious", {"index.js": "1"}, scripts={"postinstall": "env > env.txt"})
    (tmp_path / "package.json").write_text('{"private": true}')
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "FLO_API_KEY": "secret-1", "AWS_SECRET": "secret-2"}

    await Npm(scripts="allow", environ=environ).install(tmp_path, "--install-links", str(package))

    assert "secret" not in (tmp_path / "node_modules" / "curious" / "env.txt").read_text()


async def test_too_much_code_is_refused_with_its_size(tmp_path: Path, make_package: Callable[..., Path]) -> None:
    package = make_package("vast", {"index.js": f"module.exports = '{'x' * 8_000_001}'"})

    flaw = flaw_of(await build_with(tmp_path, "import vast from 'vast'; export default () => vast", [package]))

    assert "at most 8,000,000 are allowed" in flaw.message
