"""Installs hub packages: fetched by npm, checked, bundled once, and put on the shelf in one step."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import orjson
from pydantic import ValidationError

from schemas.errors import FloError, NotFound
from schemas.json import JSONObject, loads
from schemas.nodes.hub import CODE, PREFIX, RECORD, SOURCE_MAP, HubManifest, HubRecord, HubShelf
from schemas.npm import is_exact, is_name, split_spec
from schemas.wording import problems_of
from workers.preparation.build import prepared
from workers.preparation.bundler import BuildLost, Bundler
from workers.preparation.locks import FileLock
from workers.preparation.npm import Npm
from workers.preparation.npm_words import NpmFailure
from workers.preparation.recipe import Flaw, Prepared


class NotInstalled(FloError):
    """The hub package was not installed."""


async def install(spec: str, *, hub: Path, npm: Npm, bundler: Bundler) -> HubRecord:
    """Install `<package>@<version>`, a folder or a tarball; the same version again takes the place of the first.

    Raises NotInstalled with the reason, Unavailable without esbuild.
    """
    wanted = _npm_spec(spec)
    try:
        await asyncio.to_thread(hub.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=hub, prefix=".installing-") as name:
            draft = Path(name)
            home = await _fetch(wanted, draft, npm)
            record = _read_manifest(home)
            await _bundle(record, home, draft, bundler)
            async with FileLock(hub / ".lock"):
                await asyncio.to_thread(_shelve, record, draft, hub)
    except OSError as trouble:
        raise NotInstalled(f"{hub} can't be written: {trouble.strerror}; choose another home with FLO_HOME") from None
    return record


async def remove(name: str, *, hub: Path) -> str:
    """Remove `<package>@<version>`, with or without `hub.` before it; give its full name. Raises NotFound."""
    name = name if name.startswith(PREFIX) else f"{PREFIX}{name}"
    shelf = HubShelf(hub)
    home = shelf.home(name)
    if home is None or not home.is_dir():
        raise NotFound(f"{name} is not installed; installed: {', '.join(shelf.names()) or 'none'}")
    async with FileLock(hub / ".lock"):
        await asyncio.to_thread(_take_down, home)
    return name


def _npm_spec(spec: str) -> str:
    path = Path(spec)
    if path.is_dir() and (path / "package.json").is_file():
        return str(path.resolve())
    if path.is_file() and path.name.endswith((".tgz", ".tar.gz")):
        return str(path.resolve())
    if path.exists():
        raise NotInstalled(f"{spec} is neither a folder with a package.json nor a .tgz that `npm pack` made")
    package, version = split_spec(spec)
    if not is_name(package):
        raise NotInstalled(f"{spec} is no folder, no tarball and no package; give one, like acme-slug@1.0.0")
    if not is_exact(version):
        raise NotInstalled(f'"{spec}" names no exact version; give one, like {package}@1.0.0')
    return spec


async def _fetch(wanted: str, draft: Path, npm: Npm) -> Path:
    """Have npm install the package and what it depends on; give the package's folder."""
    manifest = draft / "package.json"
    manifest.write_text('{"private": true}')
    try:
        await npm.install(draft, "--install-links", wanted)
    except NpmFailure as failure:
        raise NotInstalled(f"npm install failed: {failure}") from None
    (package,) = loads(manifest.read_bytes())["dependencies"]
    return draft / "node_modules" / str(package)


def _read_manifest(home: Path) -> HubRecord:
    content: JSONObject = loads((home / "package.json").read_bytes())
    package, version = str(content.get("name")), str(content.get("version"))
    if not is_name(package) or not is_exact(version):
        raise NotInstalled(f'package.json must have a "name" and an exact "version"; it has {package} and {version}')
    if "flo" not in content:
        raise NotInstalled(
            f'{package}@{version} is no hub package: its package.json has no "flo"; '
            'add "flo": {"node": "./node.js", "inputs": [], "outputs": []}'
        )
    try:
        manifest = HubManifest.model_validate(content["flo"])
    except ValidationError as mistakes:
        lines = [f"{each.path}: {each.message}" for each in problems_of(mistakes, path="flo", model=HubManifest)]
        raise NotInstalled(f"{package}@{version} can't be used: in its package.json, {'; '.join(lines)}") from None
    return HubRecord(package=package, version=version, manifest=manifest)


async def _bundle(record: HubRecord, home: Path, draft: Path, bundler: Bundler) -> None:
    """Write into the draft what will be on the shelf."""
    entry = home / record.manifest.node
    try:
        built = prepared(await bundler.build(entry=str(entry), folder=draft))
    except BuildLost as loss:
        raise NotInstalled(str(loss)) from None
    match built:
        case Flaw() as flaw:
            raise NotInstalled(f"{record.package}@{record.version} can't be used: {flaw.message}")
        case Prepared():
            ready = draft / "ready"
            ready.mkdir()
            (ready / CODE).write_text(built.code)
            (ready / SOURCE_MAP).write_text(built.source_map)
            (ready / RECORD).write_bytes(orjson.dumps(record.model_dump(mode="json")))


def _shelve(record: HubRecord, draft: Path, hub: Path) -> None:
    home = HubShelf(hub).home(record.type)
    assert home is not None
    _take_down(home)
    (draft / "ready").rename(home)


def _take_down(home: Path) -> None:
    if home.exists():
        doomed = Path(tempfile.mkdtemp(dir=home.parent, prefix=".removing-"))
        home.rename(doomed / "package")
        shutil.rmtree(doomed, ignore_errors=True)
