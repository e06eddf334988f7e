"""The flows that stand in the documentation are valid."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from document_maker import read

PAGE = Path(__file__).parents[3] / "docs" / "flows.md"
FLOWS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_documented_flow_is_valid(flow: dict[str, object]) -> None:
    assert read({"name": "documented", **flow})[1] == ()
