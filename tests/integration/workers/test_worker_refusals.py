"""What a worker says when it can't start: one sentence with the fix, exit code 2, and nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.workers.worker_process import WorkerProcess


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("FLO_EGRESS", "not a host", "FLO_EGRESS is 'not a host': Value error, 'not a host' is not a host: give host"),
        ("FLO_EXECUTION_MODE", "sandboxed", "FLO_EXECUTION_MODE is 'sandboxed': 'UNSANDBOXED', 'SANDBOX_CODE_ONLY'"),
        ("FLO_EXECUTOR", "cloud", "FLO_EXECUTOR is 'cloud': 'inline', 'namespace'"),
        ("FLO_EXECUTOR", "http", "FLO_EXECUTOR=http hands runs to nobody: set EXECUTOR_URL to the executors"),
        ("FLO_EXECUTOR", "lambda_invoke", "hands runs to nobody: set LAMBDA_EXECUTOR_FUNCTION to the function's name"),
        ("FLO_EXECUTOR", "kubernetes_job", "Jobs have no image: set K8S_EXECUTOR_IMAGE to the runner's"),
        ("FLO_MAX_CONCURRENCY", "many", "FLO_MAX_CONCURRENCY is 'many': a valid integer"),
        ("FLO_DATABASE_URL", "mysql://here/flo", "names the database 'mysql'; Flo knows sqlite:///path"),
        ("FLO_DATABASE_URL", "sqlite:////proc/nowhere/flo.db", "make its folder writable, or set FLO_HOME"),
    ],
)
def test_a_worker_that_cannot_start_says_why(home: Path, redis_url: str, setting: str, value: str, said: str) -> None:
    database = f"sqlite:///{home / 'flo.db'}"

    with WorkerProcess(home, database, redis_url, **{setting: value}) as worker:
        code = worker.ended()

    assert code == 2
    assert said in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()
