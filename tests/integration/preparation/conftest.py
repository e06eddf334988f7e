"""Real esbuild, npm and V8; a registry where it can be reached."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prepared_flows import SMALL, Flows

from schemas.settings import Settings, load_settings
from tests.v8_pool import v8
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.preparation.npm import Npm
from workers.preparation.npm_words import NpmFailure
from workers.preparation.preparer import CachingPreparer
from workers.sandboxes.v8 import V8Pool

__all__ = ["v8"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"FLO_HOME": str(tmp_path / "home"), "FLO_NPM_ALLOW": "*"})


@pytest.fixture
async def preparer(settings: Settings) -> AsyncIterator[CachingPreparer]:
    opened = CachingPreparer.open(settings)
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def flows(v8: V8Pool, tmp_path: Path) -> AsyncIterator[Flows]:
    settings = load_settings({"FLO_HOME": str(tmp_path / "home"), "FLO_NPM_ALLOW": "*"})
    preparer = CachingPreparer.open(settings)
    async with open_client(allow_private_network=False) as http:
        yield Flows(settings, NodeTools(code=v8, http=http, app="app", run_id="run", attempt=1, preparer=preparer))
    await preparer.aclose()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A registry that npm can reach; without one, skip on a user's machine and fail in CI."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "package.json").write_text('{"private": true}')
    specs = [f"{name}@{version}" for name, version in SMALL.items()]
    try:
        asyncio.run(Npm(options=["--fetch-retries=0"]).install(folder, *specs))
    except NpmFailure as failure:
        reason = f"npm can't install from a registry here: {failure}"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """Write an npm package: its files by name, and what its package.json says beside name and version."""

    def make(name: str, files: dict[str, str], **more: Any) -> Path:
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", **more}))
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder

    return make
