"""Every variable Flo reads, in one frozen object that is made once per process."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from schemas.errors import SettingsError
from schemas.npm import NpmAllow
from schemas.reach import Reach, read_reach


class ExecutionMode(StrEnum):
    """How much stands between a user's code and this machine."""

    UNSANDBOXED = "UNSANDBOXED"
    SANDBOX_CODE_ONLY = "SANDBOX_CODE_ONLY"
    SANDBOX_PROCESS = "SANDBOX_PROCESS"
    SANDBOX_CODE_AND_PROCESS = "SANDBOX_CODE_AND_PROCESS"

    def is_weaker_than(self, other: ExecutionMode) -> bool:
        """Tell whether less stands between code and machine than in another mode."""
        return _STRENGTH[self] < _STRENGTH[other]


_STRENGTH = {mode: strength for strength, mode in enumerate(ExecutionMode)}


class ExecutorName(StrEnum):
    """What a run is handed to."""

    INLINE = "inline"
    NAMESPACE = "namespace"
    DOCKER = "docker"
    HTTP = "http"
    LAMBDA_INVOKE = "lambda_invoke"
    LAMBDA_STREAM = "lambda_stream"
    KUBERNETES_JOB = "kubernetes_job"


class SyncBackend(StrEnum):
    """What carries /invoke."""

    QUEUE = "queue"
    HTTP = "http"
    LAMBDA_INVOKE = "lambda_invoke"
    LAMBDA_STREAM = "lambda_stream"
    KUBERNETES_JOB = "kubernetes_job"
    DOCKER = "docker"


class AsyncBackend(StrEnum):
    """What carries /invoke/async, webhooks and schedules."""

    REDIS = "redis"
    SQS = "sqs"
    KAFKA = "kafka"
    HTTP = "http"


class KafkaKey(StrEnum):
    """What decides which partition a job goes to."""

    APP = "app"
    RUN = "run"


class KafkaSecurity(StrEnum):
    """How a connection to Kafka is protected."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class KafkaSasl(StrEnum):
    """How Flo shows Kafka who it is."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class SoloWay(StrEnum):
    """What a node that runs alone gets."""

    #: The strongest that is there: with a server a box, for `flo run` a container before that.
    AUTO = "auto"
    DOCKER = "docker"
    BOX = "box"
    #: A process of its own, with no wall around it but those that its mode gives to code in any case.
    PROCESS = "process"


class Compatibility(StrEnum):
    """Whether another system's API is served, and to whom."""

    OFF = "off"
    KEY = "key"
    #: Without a key, too, to programs of this machine.
    OPEN = "open"


class Settings(BaseModel):
    """The environment, read once. Use `load_settings`, which words the mistakes for a person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    home: Path = Field(default=Path(".flo"), validation_alias="FLO_HOME")
    database_url: str = Field(default="", validation_alias="FLO_DATABASE_URL")
    api_key: SecretStr | None = Field(default=None, validation_alias="FLO_API_KEY")

    #: None is the strongest mode that works here, which each process finds out at its start.
    execution_mode: ExecutionMode | None = Field(default=None, validation_alias="FLO_EXECUTION_MODE")
    #: The weakest mode that an app or a run may ask for; None is the server's own mode.
    weakest_mode: ExecutionMode | None = Field(default=None, validation_alias="FLO_WEAKEST_MODE")
    #: What a box with an engine in it may use, in MB: engine, code and scratch space together. It leaves room for one
    #: isolate of the largest size that a node may ask for.
    box_memory_mb: int = Field(default=2560, ge=128, le=1_048_576, validation_alias="FLO_BOX_MEMORY_MB")
    #: Where flows may connect to: `none`, `public`, or hosts (`api.example.com, *.example.org:443`).
    egress: str = Field(default="public", validation_alias="FLO_EGRESS")
    sync_backend: SyncBackend = Field(default=SyncBackend.QUEUE, validation_alias="EXECUTION_BACKEND")
    async_backend: AsyncBackend = Field(default=AsyncBackend.REDIS, validation_alias="ASYNC_EXECUTION_BACKEND")
    executor: ExecutorName = Field(default=ExecutorName.INLINE, validation_alias="FLO_EXECUTOR")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", validation_alias="REDIS_URL")
    #: Redis for Flower and control when the lane is SQS or Kafka.
    events_url: str | None = Field(default=None, validation_alias="FLO_EVENTS_URL")
    aws_region: str | None = Field(default=None, validation_alias="AWS_REGION")
    aws_endpoint_url: str | None = Field(default=None, validation_alias="AWS_ENDPOINT_URL")
    sqs_queue_prefix: str = Field(default="flo-", validation_alias="SQS_QUEUE_PREFIX")
    #: FIFO queues (`.fifo`): one message group per app.
    sqs_fifo: bool = Field(default=False, validation_alias="SQS_FIFO")
    kafka_bootstrap_servers: str | None = Field(default=None, validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    kafka_topic_prefix: str = Field(
        default="flo-", pattern=r"^[A-Za-z0-9._-]{0,100}$", validation_alias="KAFKA_TOPIC_PREFIX"
    )
    kafka_consumer_group: str = Field(default="flo", min_length=1, validation_alias="KAFKA_CONSUMER_GROUP")
    #: What goes to one partition, in order: an app's jobs, or, so that all workers share one busy app, each by itself.
    kafka_key: KafkaKey = Field(default=KafkaKey.APP, validation_alias="KAFKA_MESSAGE_KEY")
    #: Partitions of topics that Flo makes: at most as many workers share a lane.
    kafka_partitions: int = Field(default=12, ge=1, le=10_000, validation_alias="KAFKA_PARTITIONS")
    #: Copies of topics that Flo makes; -1 leaves it to the broker.
    kafka_replication: int = Field(default=-1, ge=-1, le=100, validation_alias="KAFKA_REPLICATION_FACTOR")
    kafka_security: KafkaSecurity = Field(default=KafkaSecurity.PLAINTEXT, validation_alias="KAFKA_SECURITY_PROTOCOL")
    kafka_sasl: KafkaSasl = Field(default=KafkaSasl.PLAIN, validation_alias="KAFKA_SASL_MECHANISM")
    kafka_username: str | None = Field(default=None, validation_alias="KAFKA_SASL_USERNAME")
    kafka_password: SecretStr | None = Field(default=None, validation_alias="KAFKA_SASL_PASSWORD")
    #: File with the authorities that the broker's certificate is checked against; none means this machine's own.
    kafka_ca_file: Path | None = Field(default=None, validation_alias="KAFKA_SSL_CAFILE")
    #: Executors that runs may be handed to over HTTP, comma-separated; each names one `flo executor`.
    executor_url: str | None = Field(default=None, validation_alias="EXECUTOR_URL")
    #: Shared by workers and executors that can't reach the API: signs run tokens instead of the keys that it lists.
    executor_key: SecretStr | None = Field(default=None, min_length=32, validation_alias="FLO_EXECUTOR_KEY")
    #: Where the API is, for executors that check run tokens by the keys that it lists.
    api_url: str | None = Field(default=None, pattern=r"^https?://[^\s?#]+$", validation_alias="FLO_URL")
    #: The function that runs are handed to: a name, an ARN, or a Function URL.
    lambda_function: str | None = Field(default=None, validation_alias="LAMBDA_EXECUTOR_FUNCTION")
    k8s_namespace: str = Field(default="default", validation_alias="K8S_NAMESPACE")
    k8s_executor_image: str | None = Field(default=None, validation_alias="K8S_EXECUTOR_IMAGE")
    k8s_runtime_class: str | None = Field(default=None, validation_alias="K8S_RUNTIME_CLASS")
    #: Which cluster; none is the one in which this process itself runs.
    kubeconfig: str | None = Field(default=None, validation_alias="KUBECONFIG")
    #: File with the pod that an operator wants Jobs to have (PodTemplateSpec): where they run, with which rights.
    k8s_pod_template: Path | None = Field(default=None, validation_alias="K8S_POD_TEMPLATE")
    #: Seconds that a Job's pod may take to begin: to find a node, and to have its image pulled.
    k8s_start_seconds: float = Field(default=300.0, ge=1, le=86_400, validation_alias="K8S_START_SECONDS")
    #: Seconds for which the cluster keeps a Job that is over.
    k8s_keep_seconds: int = Field(default=300, ge=0, le=604_800, validation_alias="K8S_KEEP_SECONDS")

    #: The Docker daemon: `unix:///var/run/docker.sock` unless given, or `tcp://host:2376`.
    docker_host: str | None = Field(default=None, pattern=r"^(unix|tcp)://", validation_alias="DOCKER_HOST")
    docker_tls_verify: str | None = Field(default=None, validation_alias="DOCKER_TLS_VERIFY")
    docker_cert_path: str | None = Field(default=None, validation_alias="DOCKER_CERT_PATH")
    #: The image in which the docker executor runs flows.
    docker_image: str = Field(default="flo-runner:latest", min_length=1, validation_alias="FLO_DOCKER_IMAGE")
    #: Other images that flows may have, comma-separated: `alpine:3.20, ghcr.io/acme/*`.
    docker_allow: str = Field(default="", validation_alias="FLO_DOCKER_ALLOW")
    #: OCI runtimes that containers may have, comma-separated, e.g. `runsc`; the first is for those that ask for none.
    docker_runtime: str = Field(default="", validation_alias="FLO_DOCKER_RUNTIME")
    #: The daemon's network for `docker.run` nodes that ask for one; without it they get none.
    docker_network: str | None = Field(default=None, validation_alias="FLO_DOCKER_NETWORK")
    #: Started containers that wait for a run.
    docker_ready: int = Field(default=2, ge=0, le=64, validation_alias="FLO_DOCKER_READY")

    #: Longest time-out, in seconds, that an `http.request` node may ask for while it runs inline.
    inline_http_max_duration: float = Field(default=300.0, gt=0, validation_alias="FLO_INLINE_HTTP_MAX_DURATION")
    #: Inline requests that one worker (or one box with an engine) has on their way at once; others wait for their turn.
    max_inline_http: int = Field(default=256, ge=1, le=100_000, validation_alias="FLO_MAX_INLINE_HTTP")
    #: What nodes with `execution_mode: "sandbox"` run in.
    solo: SoloWay = Field(default=SoloWay.AUTO, validation_alias="FLO_SOLO")
    #: Nodes that run alone on one worker at once; others wait for their turn.
    max_solo_nodes: int = Field(default=4, ge=1, le=10_000, validation_alias="FLO_MAX_SOLO_NODES")
    #: Memory of a node that runs alone, in MB: the most that it may ask for, and what it has when it asks for nothing.
    solo_memory_mb: int = Field(default=2560, ge=128, le=1_048_576, validation_alias="FLO_SOLO_MEMORY_MB")
    #: Processors that such a node may use at once, likewise; None is as many as there are.
    solo_cpus: float | None = Field(default=None, gt=0, le=1024, validation_alias="FLO_SOLO_CPUS")
    #: Where people and other machines reach the API: what the URLs of waitpoints begin with.
    public_url: str = Field(
        default="http://127.0.0.1:8080", pattern=r"^https?://[^\s?#]+$", validation_alias="FLO_PUBLIC_URL"
    )
    #: Runs that one worker executes at once.
    max_concurrency: int = Field(default=128, ge=1, le=10_000, validation_alias="FLO_MAX_CONCURRENCY")
    #: Attempts before a run that keeps losing its worker is dead-lettered.
    max_attempts: int = Field(default=3, ge=1, le=100, validation_alias="FLO_MAX_ATTEMPTS")
    #: Largest request body in bytes; more is answered 413.
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, validation_alias="FLO_MAX_BODY_BYTES")
    #: Seconds after its last heartbeat at which a worker is taken for dead.
    lease_seconds: float = Field(default=10.0, ge=1, validation_alias="FLO_LEASE_SECONDS")
    #: Days for which finished runs are kept, with their events, attempts and deliveries; 0 is for ever.
    retention_days: float = Field(default=30.0, ge=0, le=36_500, validation_alias="FLO_RETENTION_DAYS")
    #: Payloads, results and outputs whose JSON is longer than this, in bytes, are kept once, beside the rows.
    blob_threshold_bytes: int = Field(default=256 * 1024, ge=1024, validation_alias="FLO_BLOB_THRESHOLD_BYTES")
    #: Days for which dead letters are kept; 0 is for ever.
    dead_letter_days: float = Field(default=90.0, ge=0, le=36_500, validation_alias="FLO_DEAD_LETTER_DAYS")
    #: npm packages that code nodes may depend on, comma-separated: `lodash, zod@^3, @acme/slug@1.0.0`; `*` is any.
    npm_allow: str = Field(default="", validation_alias="FLO_NPM_ALLOW")
    #: Whether installing a package may run its scripts, which can do whatever this process can: `deny` or `allow`.
    npm_scripts: Literal["deny", "allow"] = Field(default="deny", validation_alias="FLO_NPM_SCRIPTS")
    #: What prepared code, and the packages that it was made of, may each take on disk, in MB; the oldest goes first.
    code_cache_mb: int = Field(default=2048, ge=16, validation_alias="FLO_CODE_CACHE_MB")
    #: Node host processes that run V8 isolates in one worker; 0 means one per core.
    v8_hosts: int = Field(default=0, ge=0, le=256, validation_alias="FLO_V8_HOSTS")
    #: Lets `http.request` reach private, loopback and link-local addresses. Never on a shared server.
    allow_private_network: bool = Field(default=False, validation_alias="FLO_ALLOW_PRIVATE_NETWORK")
    #: FlowEngine's API: not at all, with a key, or without one on this machine, as FlowEngine itself serves everyone.
    compat_flowengine: Compatibility = Field(default=Compatibility.KEY, validation_alias="FLO_COMPAT_FLOWENGINE")
    log_format: str = Field(default="console", pattern="^(console|json)$", validation_alias="FLO_LOG_FORMAT")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", validation_alias="FLO_LOG_LEVEL")

    @field_validator("npm_allow")
    @classmethod
    def _readable(cls, value: str) -> str:
        NpmAllow.parse(value)
        return value

    @field_validator("egress")
    @classmethod
    def _reachable(cls, value: str) -> str:
        read_reach(value)
        return value

    @property
    def reach(self) -> Reach:
        """Where the flows of apps without a policy of their own may connect to."""
        return read_reach(self.egress)

    @property
    def executor_urls(self) -> tuple[str, ...]:
        """The executors that runs may be handed to over HTTP."""
        return tuple(url.strip().rstrip("/") for url in (self.executor_url or "").split(",") if url.strip())

    @property
    def docker_images(self) -> tuple[str, ...]:
        """Patterns of the images that flows may have."""
        return (self.docker_image, *_words(self.docker_allow))

    @property
    def docker_runtimes(self) -> tuple[str, ...]:
        """The OCI runtimes that containers may have, the one for those that ask for none first."""
        return _words(self.docker_runtime)

    @property
    def npm(self) -> NpmAllow:
        """The packages that code nodes may depend on."""
        return NpmAllow.parse(self.npm_allow)

    @property
    def mode(self) -> ExecutionMode:
        """The mode that runs have unless something stronger is asked for; until one is found, what works anywhere."""
        return self.execution_mode or ExecutionMode.SANDBOX_CODE_ONLY

    @property
    def weakest(self) -> ExecutionMode:
        """The weakest mode that may be asked for."""
        return self.weakest_mode or self.mode

    def in_mode(self, mode: ExecutionMode) -> Settings:
        """Give the same settings with the mode that was found to work."""
        return self.model_copy(update={"execution_mode": mode})

    @property
    def hub(self) -> Path:
        """Where installed hub packages are."""
        return self.home.absolute() / "hub"

    @property
    def store_url(self) -> str:
        """The database, with the embedded SQLite file as default."""
        return self.database_url or f"sqlite:///{(self.home / 'flo.db').absolute()}"

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def loan(self) -> timedelta:
        """How long an attempt that calls back may be silent before its run goes to somebody else."""
        return 3 * self.lease

    @property
    def heartbeat(self) -> timedelta:
        """Worker heartbeat period: three beats fit in a lease with room to spare."""
        return timedelta(seconds=self.lease_seconds / 3.5)


#: Their values are never repeated.
_HIDDEN = frozenset({"FLO_API_KEY", "FLO_EXECUTOR_KEY"})
#: Variables of the FLO_ family that other parts read: the command line and the scripts.
_OTHERS = frozenset({"FLO_APP", "FLO_TEST_POSTGRES_URL", "FLO_WORKER_GROUP", "FLO_LANES"})


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; raise SettingsError that names each wrong variable, its value and what is allowed."""
    environ = os.environ if environ is None else environ
    values = {name: environ[name] for name in _VARIABLES if environ.get(name, "") != ""}
    try:
        return Settings.model_validate(values)
    except ValidationError as mistakes:
        lines = []
        for mistake in mistakes.errors():
            name = str(mistake["loc"][0])
            given = "***" if name in _HIDDEN else repr(mistake["input"])
            lines.append(f"{name} is {given}: {mistake['msg'].removeprefix('Input should be ')}")
        raise SettingsError("; ".join(lines)) from None


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """List FLO_ variables that nothing reads, each with the name that was probably meant."""
    known = _VARIABLES | _OTHERS
    unknown = [name for name in environ if name.startswith("FLO_") and name not in known]
    return {name: next(iter(difflib.get_close_matches(name, known, n=1)), None) for name in unknown}


def _words(listed: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in listed.split(",") if word.strip())


_VARIABLES = frozenset(str(field.validation_alias) for field in Settings.model_fields.values())
