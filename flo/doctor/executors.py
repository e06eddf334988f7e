"""Asks the executors elsewhere that are configured whether they are there."""

from __future__ import annotations

from collections.abc import Mapping

from flo.doctor.checks import Finding

#: Seconds; one that is busy still answers at once.
_PATIENCE = 5


def http_executors(environ: Mapping[str, str]) -> Finding:
    """Ask each executor of EXECUTOR_URL for its health; it must be there when queue workers hand to `http`."""
    urls = [url.strip().rstrip("/") for url in environ.get("EXECUTOR_URL", "").split(",") if url.strip()]
    needed = "http" in (environ.get("FLO_EXECUTOR"), environ.get("EXECUTION_BACKEND"))
    if not urls:
        fix = "start `flo executor`, and set EXECUTOR_URL to where it listens, e.g. http://127.0.0.1:8090"
        return Finding(name="executor http", ok=False, detail="no executor is named", fix=fix, needed=needed)
    silent = {url: why for url in urls if (why := _why_silent(url)) is not None}
    detail = "; ".join(f"{url}: {silent.get(url, 'answers')}" for url in urls)
    fix = f"start `flo executor` there, or take {', '.join(silent)} out of EXECUTOR_URL"
    return Finding(name="executor http", ok=not silent, detail=detail, fix=fix, needed=needed)


def _why_silent(url: str) -> str | None:
    import httpx

    try:
        answer = httpx.get(f"{url}/health", timeout=_PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        return f"does not answer ({failure or type(failure).__name__})"
    return None if answer.status_code == 200 else f"is no executor (it answered {answer.status_code})"
