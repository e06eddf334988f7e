"""`flo schema` as a program."""

from __future__ import annotations

import json
import subprocess
import sys

from schemas.catalog import load_catalog
from schemas.flow_schema import flow_schema


def test_flo_schema_prints_the_schema_that_the_api_serves() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "flo", "schema"], capture_output=True, check=True, timeout=60)

    assert json.loads(done.stdout) == json.loads(json.dumps(flow_schema(load_catalog().list())))
