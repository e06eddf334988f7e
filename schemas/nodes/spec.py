"""The description of a node type: its ports, its config, and what may be assumed of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal, TypeAlias, cast, get_args

from pydantic import ConfigDict, Field, model_validator

from schemas.flow import MAX_EXECUTION_TIME_MS, FlowDocument, NodePlace, Part, Whole
from schemas.json import JSONObject, JSONValue
from schemas.npm import NO_PACKAGES, NpmAllow
from schemas.settings import ExecutionMode

JSONType = Literal["any", "string", "number", "integer", "boolean", "object", "array"]

EVERY_MODE = frozenset(ExecutionMode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A named place where a value enters or leaves a node."""

    name: str
    type: JSONType = "any"
    description: str
    #: Of an input: the node can't run without it.
    required: bool = False


#: As many processors as a node could be said to have.
MOST_CPUS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SoloBounds:
    """The most that a node which runs alone may ask for."""

    memory_mb: int = 1_048_576
    cpus: float = MOST_CPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class PushLimits:
    """What the operator allows a document to ask for."""

    max_inline_http: timedelta
    npm: NpmAllow = NO_PACKAGES
    solo: SoloBounds = SoloBounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A config that is well-formed and still not allowed."""

    key: str
    message: str
    fix: str


#: Why a node can't be in a sandbox of its own: it waits without any.
PARKS = "it parks its run, which then holds no worker and no sandbox"


class NodeConfig(Part):
    """What every node type's config may hold."""

    #: However it is configured, it waits for something outside its run.
    always_parks: ClassVar[bool] = False

    timeout_ms: Whole | None = Field(default=None, ge=1, le=MAX_EXECUTION_TIME_MS, description="limit in milliseconds")
    #: FlowEngine's name for the same limit.
    timeout: float | None = Field(default=None, gt=0, le=MAX_EXECUTION_TIME_MS / 1000, description="limit in seconds")

    @model_validator(mode="after")
    def _one_limit(self) -> NodeConfig:
        if self.timeout_ms is not None and self.timeout is not None:
            raise ValueError("timeout (seconds) and timeout_ms (milliseconds) both say how long; keep one of them")
        return self

    @property
    def limit(self) -> timedelta | None:
        """How long the node may run, if its config says so."""
        if self.timeout_ms is not None:
            return timedelta(milliseconds=self.timeout_ms)
        return timedelta(seconds=self.timeout) if self.timeout is not None else None

    def engine_limit(self) -> timedelta | None:
        """How long the engine lets the node run; None when the node holds itself to its limit."""
        return self.limit

    def refusals(self, limits: PushLimits) -> Iterator[Refusal]:
        """List what the operator does not allow in this config."""
        yield from ()

    def place(self) -> NodePlace | None:
        """Say where the node is to run, if its config has a word on that."""
        return None

    def parks(self) -> bool:
        """Tell whether the node, so configured, ends the attempt and waits without a worker."""
        return self.always_parks

    def why_not_alone(self) -> str | None:
        """Tell why the node, so configured, can't run in a sandbox of its own, if it can't."""
        return PARKS if self.parks() else None

    def more_outputs(self) -> tuple[str, ...]:
        """Name the output ports that the node has because of its config."""
        return ()

    def inner_flows(self) -> Mapping[str, FlowDocument]:
        """Give the flows that stand inside the config, by their place in it."""
        return {}

    def inner_at_once(self) -> int:
        """Tell how many of the flows inside run at the same time, at most."""
        return 1

    def target(self, inputs: Mapping[str, JSONValue]) -> str | None:
        """Name the machine that the node will call, for circuit breakers; None when it calls none that it knows."""
        return None


#: The model of a node type's config (inside NodeType, `type` is a field).
ConfigModel: TypeAlias = type[NodeConfig]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """One kind of node, as documents name it."""

    type: str
    category: str
    description: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    #: Any other input (output) port may be used too.
    open_inputs: bool = False
    open_outputs: bool = False
    config: ConfigModel = NodeConfig
    example: JSONObject
    #: Running it again has no effect outside the run, so no checkpoint has to be written before dependents start.
    repeatable: bool = True
    #: What hangs on an output port that stays empty is skipped.
    branching: bool = False
    #: The modes that allow it.
    modes: frozenset[ExecutionMode] = EVERY_MODE

    def input(self, name: str) -> Port | None:
        return next((port for port in self.inputs if port.name == name), None)

    def output(self, name: str) -> Port | None:
        return next((port for port in self.outputs if port.name == name), None)

    def fixed_inputs(self, config: JSONObject) -> JSONObject:
        """Give the input ports whose value stands in the config; null is a value only where any value is."""
        return {
            port.name: config[port.name]
            for port in self.inputs
            if port.name in config and (port.type == "any" or config[port.name] is not None)
        }

    def as_json(self) -> JSONObject:
        """Describe the type as `flo nodes --json` and the API show it."""
        return {
            "type": self.type,
            "category": self.category,
            "description": self.description,
            "inputs": [_port(port) for port in self.inputs],
            "outputs": [_port(port) for port in self.outputs],
            "open_inputs": self.open_inputs,
            "open_outputs": self.open_outputs,
            "config_schema": self.config.model_json_schema(),
            "example": self.example,
            "repeatable": self.repeatable,
            "branching": self.branching,
            "modes": [str(mode) for mode in sorted(self.modes)],
            "execution_modes": ["inline"] if self.config.always_parks else list(get_args(NodePlace)),
        }


class OpaqueConfig(NodeConfig):
    """The config of a node type that is known by its description only; whoever has the type itself checks it."""

    model_config = ConfigDict(extra="allow", frozen=True)


def described(said: JSONObject) -> NodeType:
    """Make a node type of what `as_json` gave, where the package that brings it is not installed."""
    return NodeType(
        type=str(said["type"]),
        category=str(said["category"]),
        description=str(said["description"]),
        inputs=tuple(Port(**port) for port in cast(list[Any], said["inputs"])),
        outputs=tuple(Port(**port) for port in cast(list[Any], said["outputs"])),
        open_inputs=bool(said["open_inputs"]),
        open_outputs=bool(said["open_outputs"]),
        config=OpaqueConfig,
        example=cast(JSONObject, said["example"]),
        repeatable=bool(said["repeatable"]),
        branching=bool(said["branching"]),
        modes=frozenset(ExecutionMode(str(mode)) for mode in cast(list[Any], said["modes"])),
    )


def _port(port: Port) -> JSONValue:
    return {"name": port.name, "type": port.type, "required": port.required, "description": port.description}
