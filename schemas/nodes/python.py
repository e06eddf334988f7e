"""The node type that runs a user's Python."""

from __future__ import annotations

from pydantic import Field

from schemas.nodes.boxed import PROCESS_MODES, BoxedConfig
from schemas.nodes.spec import NodeType, Port


class PythonConfig(BoxedConfig):
    code: str = Field(
        min_length=1,
        max_length=1_000_000,
        description="Python that defines main(**inputs), plain or async; inputs that main does not name are left out",
    )


CODE_PYTHON = NodeType(
    type="code.python",
    category="code",
    description="Runs a Python function of the inputs, main, with the standard library; what it prints is the log.",
    outputs=(Port(name="output", description="what main returned; each key of a returned dict is a port too"),),
    open_inputs=True,
    open_outputs=True,
    config=PythonConfig,
    example={"code": "def main(name):\n    return {'text': f'hello {name}'}", "timeout_ms": 5000, "memory_mb": 128},
    repeatable=False,
    modes=PROCESS_MODES,
)
