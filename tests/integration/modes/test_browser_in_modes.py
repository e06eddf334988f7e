"""browser.render in each mode that has a place for commands."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from in_mode import opened

from schemas.nodes.boxed import PROCESS_MODES
from schemas.settings import ExecutionMode
from tests.servers import missing


@pytest.mark.parametrize("mode", sorted(PROCESS_MODES))
async def test_a_page_is_rendered_wherever_commands_run(mode: ExecutionMode, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        missing("Chromium", "apt-get install chromium")
    html = "<p>six times seven is <b id=b></b></p><script>b.textContent = 6 * 7</script>"

    async with opened(mode, tmp_path) as worker:
        result = await worker.result("browser.render", {"html": html, "mode": "screenshot"})

    assert result["text"] == "six times seven is 42"
    assert base64.b64decode(result["screenshot"]).startswith(b"\x89PNG")
