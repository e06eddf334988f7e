"""Node types that an operator installed: `hub.<package>@<version>`, each an npm package with a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from schemas.flow import Part
from schemas.json import JSONObject, JSONValue, loads
from schemas.nodes.code import SandboxedConfig
from schemas.nodes.config_schema import model_from, with_defaults
from schemas.nodes.spec import JSONType, NodeType, Port
from schemas.npm import is_exact, is_name, split_spec

PREFIX = "hub."
#: In the folder of an installed package: what it is, what runs, and the way back to its lines.
RECORD, CODE, SOURCE_MAP = "node.json", "node.js", "node.js.map"

_JSON_TYPES: dict[JSONType, JSONObject] = {
    "any": {},
    **{kind: {"type": kind} for kind in ("string", "number", "integer", "boolean", "object", "array")},
}


class HubPort(Part):
    """A port as a manifest describes it."""

    name: str = Field(min_length=1, max_length=200)
    type: JSONType = "any"
    description: str = ""
    required: bool = False


class HubManifest(Part):
    """What a package's package.json says under `flo`."""

    node: str = Field(min_length=1, description="the module whose default export is (inputs, config) => outputs")
    description: str = ""
    inputs: tuple[HubPort, ...] = ()
    outputs: tuple[HubPort, ...] = ()
    config: JSONObject = Field(default={}, description="JSON Schema of the node's config")

    @field_validator("inputs", "outputs")
    @classmethod
    def _once(cls, ports: tuple[HubPort, ...]) -> tuple[HubPort, ...]:
        names = [port.name for port in ports]
        if len(set(names)) < len(names):
            raise ValueError("two ports have the same name")
        return ports

    @model_validator(mode="after")
    def _makes_a_model(self) -> HubManifest:
        config_model(self, "manifest")
        return self


class HubRecord(Part):
    """One installed package."""

    schema_version: int = 1
    package: str
    version: str
    manifest: HubManifest

    @property
    def type(self) -> str:
        return f"{PREFIX}{self.package}@{self.version}"

    def node_type(self) -> NodeType:
        """Describe the package as flows use it."""
        return NodeType(
            type=self.type,
            category="hub",
            description=self.manifest.description or f"The npm package {self.package} as a node.",
            inputs=tuple(_port(port) for port in self.manifest.inputs),
            outputs=tuple(_port(port) for port in self.manifest.outputs),
            config=config_model(self.manifest, self.type),
            example={},
        )


class HubConfig(SandboxedConfig):
    """The config of a hub node: the keys of its own schema, its input ports, and the limits of everything that runs."""

    own_schema: ClassVar[JSONObject] = {}

    def own(self) -> JSONValue:
        """Give what the package's own schema speaks of, with its defaults: what the node gets as `config`."""
        properties = self.own_schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        given = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return with_defaults(self.own_schema, {key: value for key, value in given.items() if key in known})


def config_model(manifest: HubManifest, name: str) -> type[HubConfig]:
    """Make the model of a hub node's config. Raises ValueError for a schema that is not supported."""
    own = model_from(manifest.config, base=HubConfig, name=name)
    own.own_schema = manifest.config
    properties = manifest.config.get("properties")
    taken = {*HubConfig.model_fields, *(properties if isinstance(properties, dict) else ())}
    ports: JSONObject = {
        port.name: {**_JSON_TYPES[port.type], "description": "used when no connection brings one"}
        for port in manifest.inputs
        if port.name not in taken
    }
    return model_from({"properties": ports}, base=own, name=name) if ports else own


class HubShelf:
    """The installed packages in a folder, seen as they are now: installing one needs no restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, NodeType]] = {}

    def get(self, name: str) -> NodeType | None:
        """Find a node type by its full name; None when it is not installed, or can't be read."""
        home = self.home(name)
        try:
            if home is None:
                return None
            changed = (home / RECORD).stat().st_mtime_ns
            known = self._known.get(name)
            if known is None or known[0] != changed:
                record = HubRecord.model_validate(loads((home / RECORD).read_bytes()))
                known = self._known[name] = (changed, record.node_type())
        except (OSError, ValueError):
            return None
        return known[1]

    def home(self, name: str) -> Path | None:
        """Tell in which folder a node type is, or would be; None when the name is no hub type's."""
        package, version = split_spec(name.removeprefix(PREFIX))
        if not name.startswith(PREFIX) or not is_name(package) or not is_exact(version):
            return None
        return self._folder / f"{package.replace('/', '+')}@{version}"

    def names(self) -> Iterator[str]:
        """List what is installed, by name."""
        try:
            folders = sorted(folder.name for folder in self._folder.iterdir())
        except OSError:
            return
        for folder in folders:
            name = f"{PREFIX}{folder.replace('+', '/', 1) if folder.startswith('@') else folder}"
            if self.get(name) is not None:
                yield name

    def missing(self, name: str) -> tuple[str, str]:
        """Say of a node type that is not installed what is wrong, and the fix."""
        package, version = split_spec(name.removeprefix(PREFIX))
        installed = list(self.names())
        if not is_exact(version):
            message = f'"{name}" names no version of the hub package "{package}"'
            versions = [each for each in installed if each.startswith(f"{PREFIX}{package}@")]
            return message, f"write {' or '.join(versions) or f'{PREFIX}{package}@<version>'}"
        message = (
            f'the hub package "{package}@{version}" is not installed here; installed: {", ".join(installed) or "none"}'
        )
        return message, f"the operator can install it: flo hub install {package}@{version}"


def _port(port: HubPort) -> Port:
    return Port(name=port.name, type=port.type, required=port.required, description=port.description or port.name)
