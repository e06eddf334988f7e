"""A Flo whose workers hand all runs to functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.carriers import CREDENTIALS
from tests.e2e.flo_program import FloDev, flo_dev
from tests.servers import free_port, run_lambda

#: The double's functions: AWS's runtime answers in one piece, ours streams.
FUNCTIONS = {"lambda_invoke": "flo", "lambda_stream": "flo-stream"}
#: Functions at once: each is a process with its own engine.
AT_ONCE = 4


@contextmanager
def running(home: Path, *, calls_back: bool, executor: str = "lambda_invoke") -> Iterator[FloDev]:
    """Run Flo, whose workers hand all runs to functions."""
    port = free_port()
    with run_lambda(
        "--concurrency", str(AT_ONCE), "--set", "FLO_EXECUTION_MODE=SANDBOX_CODE_ONLY",
        "--set", "FLO_ALLOW_PRIVATE_NETWORK=1",
    ) as functions:  # fmt: skip
        variables = {
            "FLO_LEASE_SECONDS": "3", "FLO_EXECUTOR": executor, "LAMBDA_EXECUTOR_FUNCTION": FUNCTIONS[executor],
            "FLO_MAX_CONCURRENCY": "50", "FLO_ALLOW_PRIVATE_NETWORK": "1", **functions.environment, **CREDENTIALS,
        }  # fmt: skip
        if calls_back:
            variables["FLO_URL"] = f"http://127.0.0.1:{port}"
        with flo_dev(home, "--no-flower", "--port", str(port), **variables) as dev:
            yield dev
