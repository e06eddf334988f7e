"""Opens what `redis_queue.envelope` has sealed: one message format on every carrier, Celery's protocol 2."""

from __future__ import annotations

from pydantic import ValidationError

from schemas.job import Job
from schemas.json import loads


class Unreadable(ValueError):
    """A message that is not a job."""


def open_envelope(message: str | bytes) -> Job:
    """Read the job in a message. Raises Unreadable with the reason for anything else."""
    try:
        letter = loads(message)
        job = Job.model_validate(loads(letter["body"])[1]["job"])
        task = letter["headers"]["task"]
    except (ValidationError, ValueError, LookupError, TypeError) as error:
        raise Unreadable(f"not a job ({type(error).__name__}: {error})"[:500]) from error
    if task != job.kind.task_name:
        raise Unreadable(f"task {task!r} carries a job of kind {job.kind}")
    return job
