"""Hub packages, from `flo hub install` to the result of a run."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prepared_flows import SMALL, Flows

from schemas.catalog import load_catalog
from schemas.errors import Invalid, NotFound
from schemas.nodes.hub import HubRecord, HubShelf
from schemas.outcome import ErrorKind, Failed, Succeeded
from workers.preparation.bundler import Bundler
from workers.preparation.hub_install import NotInstalled, install, remove
from workers.preparation.npm import Npm

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = Path(__file__).parents[2] / "hub_example"
SLUG = "hub.flo-example-slug@1.0.0"
ECHO = {"flo": {"node": "./node.js", "outputs": [{"name": "got"}]}, "type": "module"}

Install = Callable[[Path | str], Any]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "home" / "hub"


@pytest_asyncio.fixture(loop_scope="module")
async def installing(hub: Path) -> AsyncIterator[Install]:
    bundler = Bundler()

    async def put(spec: Path | str) -> HubRecord:
        return await install(str(spec), hub=hub, npm=Npm(), bundler=bundler)

    yield put
    await bundler.aclose()


async def test_the_example_runs_after_it_is_installed_from_its_folder(flows: Flows, installing: Install) -> None:
    await installing(EXAMPLE)

    outcome = await flows.run(SLUG, {"text": "Café au Lait!"})

    assert outcome == Succeeded(result={"slug": "cafe-au-lait", "words": 3})


async def test_the_config_reaches_the_node_with_its_defaults(flows: Flows, installing: Install) -> None:
    await installing(EXAMPLE)

    outcome = await flows.run(SLUG, {"text": "unused"}, text="One two three", separator="_", max_words=2)

    assert outcome == Succeeded(result={"slug": "one_two", "words": 2})


async def test_an_error_has_the_lines_of_the_package(flows: Flows, installing: Install) -> None:
    await installing(EXAMPLE)

    outcome = await flows.run(SLUG, {"text": "..."})

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.USER
    assert outcome.error.message == "flo-example-slug/node.js:6:33: Error: the text has no words"


async def test_a_wrong_config_is_refused_at_push_like_any_other(flows: Flows, installing: Install) -> None:
    await installing(EXAMPLE)

    with pytest.raises(Invalid) as refused:
        await flows.run(SLUG, separator=3, max_word=1)

    found = {problem.path: problem for problem in refused.value.problems}
    assert found["nodes[0].config.separator"].message == "must be a string; given 3"
    assert found["nodes[0].config.max_word"].fix == 'did you mean "max_words"?'


async def test_a_package_that_is_not_installed_says_how_to_install_it(flows: Flows, installing: Install) -> None:
    await installing(EXAMPLE)

    with pytest.raises(Invalid) as refused:
        await flows.run("hub.flo-example-slug@2.0.0")

    (problem,) = refused.value.problems
    assert problem.message == (
        f'node "a": the hub package "flo-example-slug@2.0.0" is not installed here; installed: {SLUG}'
    )
    assert problem.fix == "the operator can install it: flo hub install flo-example-slug@2.0.0"


async def test_a_type_without_a_version_names_the_installed_ones(flows: Flows, installing: Install) -> None:
    await installing(EXAMPLE)

    with pytest.raises(Invalid) as refused:
        await flows.run("hub.flo-example-slug")

    assert refused.value.problems[0].fix == f"write {SLUG}"


@pytest.mark.parametrize(
    "name", ["hub.", "hub.@", "hub.../../etc@1.0.0", "hub.a/b@1.0.0", "hub.x@../../../etc", "hub.x@^1"]
)
async def test_a_name_that_is_no_package_reaches_no_file(flows: Flows, hub: Path, name: str) -> None:
    assert HubShelf(hub).home(name) is None
    with pytest.raises(Invalid):
        await flows.run(name)


async def test_the_catalog_lists_what_is_installed_without_a_restart(hub: Path, installing: Install) -> None:
    catalog = load_catalog(hub=hub)
    before = set(catalog)

    await installing(EXAMPLE)

    assert set(catalog) - before == {SLUG}
    (listed,) = [node_type for node_type in catalog.list() if node_type.type == SLUG]
    assert listed.as_json()["category"] == "hub"


async def test_a_tarball_installs_like_its_folder(flows: Flows, installing: Install, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "slug.tgz", "w:gz") as tarball:
        tarball.add(EXAMPLE, arcname="package")

    await installing(tmp_path / "slug.tgz")

    assert await flows.run(SLUG, {"text": "a b"}) == Succeeded(result={"slug": "a-b", "words": 2})


async def test_the_same_version_again_takes_the_place_of_the_first(
    flows: Flows, installing: Install, make_package: Callable[..., Path], hub: Path
) -> None:
    package = make_package("@acme+echo", {"node.js": "export default () => ({got: 1})"}, **ECHO)
    text = (package / "package.json").read_text().replace("@acme+echo", "@acme/echo")
    (package / "package.json").write_text(text)
    await installing(package)
    first = await flows.run("hub.@acme/echo@1.0.0")
    (package / "node.js").write_text("export default async () => ({got: 2})")

    await installing(package)

    assert first == Succeeded(result={"got": 1})
    assert await flows.run("hub.@acme/echo@1.0.0") == Succeeded(result={"got": 2})
    assert os.listdir(hub) == ["@acme+echo@1.0.0"]  # noqa: PTH208 - nothing else is left


@pytest.mark.usefixtures("registry")
async def test_a_package_brings_its_own_dependencies(
    flows: Flows, installing: Install, make_package: Callable[..., Path]
) -> None:
    source = "import ms from 'ms'; export default () => ({got: ms('1h')})"
    await installing(make_package("timely", {"node.js": source}, dependencies=SMALL, **ECHO))

    assert await flows.run("hub.timely@1.0.0") == Succeeded(result={"got": 3_600_000})


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ("export default 1", {}, 'hasty@1.0.0 is no hub package: its package.json has no "flo"'),
        ("export default 1", {"flo": {"node": "./gone.js"}}, 'imports "'),
        ("export const a = 1", ECHO, 'No matching export in "node_modules/hasty/node.js" for import "default"'),
        ("import 'node:fs'; export default 1", ECHO, 'The package "hasty" needs "node:fs", which is part of Node'),
        ("export default (", ECHO, "hasty/node.js:1:17"),
        ("export default 1", {"flo": {"node": "/etc/hostname"}}, "outside its folder"),
        ("export default 1", {"flo": {"node": "./node.js", "input": []}}, 'flo.input: unknown key "input"'),
        ("export default 1", {"flo": {"node": "./x.js", "inputs": [{"name": "a", "type": "t"}]}}, "flo.inputs[0].type"),
        ("export default 1", {"flo": {"node": "./x.js", "config": {"$ref": "x"}}}, 'the keyword "$ref" is not'),
        ("export default 1", {"flo": {"node": "./node.js"}, "version": "1"}, "exact"),
    ],
)  # fmt: skip
async def test_a_package_that_can_not_be_a_node_is_refused_with_the_reason(
    installing: Install, make_package: Callable[..., Path], source: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(NotInstalled) as refused:
        await installing(make_package("hasty", {"node.js": source}, **more))

    assert said in str(refused.value)


@pytest.mark.parametrize("spec", ["acme", "acme@latest", "acme@^1.0.0", "https://a.example/x.tgz", "git+ssh://x", "-g"])
async def test_only_one_version_a_folder_or_a_tarball_can_be_installed(installing: Install, spec: str) -> None:
    with pytest.raises(NotInstalled, match=r"names no exact version|is no folder"):
        await installing(spec)


async def test_a_node_that_returns_no_object_says_so(
    flows: Flows, installing: Install, make_package: Callable[..., Path]
) -> None:
    await installing(make_package("odd", {"node.js": "export default () => 1"}, **ECHO))

    outcome = await flows.run("hub.odd@1.0.0")

    assert isinstance(outcome, Failed)
    assert outcome.error.message == "hub.odd@1.0.0 must return an object of its output ports, and did not"


async def test_what_is_removed_is_gone(flows: Flows, installing: Install, hub: Path) -> None:
    await installing(EXAMPLE)

    assert await remove("flo-example-slug@1.0.0", hub=hub) == SLUG

    with pytest.raises(Invalid):
        await flows.run(SLUG, {"text": "a"})
    with pytest.raises(NotFound, match="installed: none"):
        await remove(SLUG, hub=hub)
