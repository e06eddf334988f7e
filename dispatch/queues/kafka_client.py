"""Kafka as the publisher and the worker both use it: names, connection options, topics made when missing."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from dispatch.queues.kafka_log import slow_down
from schemas.errors import SettingsError, Unavailable
from schemas.settings import KafkaSecurity, Settings

log = structlog.get_logger()

#: Longest wait for an answer of a broker, in milliseconds.
REQUEST_TIMEOUT_MS = 10_000
_DEAD = ".dead"


def topic_of(settings: Settings, queue: str) -> str:
    """Name the topic that carries a lane."""
    return f"{settings.kafka_topic_prefix}{queue}"


def dead_topic_of(topic: str) -> str:
    """Name the topic in which a lane's unreadable messages are kept."""
    return f"{topic}{_DEAD}"


def connection_options(settings: Settings) -> dict[str, Any]:
    """Give what every aiokafka client is made with. Raises SettingsError for what is missing."""
    slow_down()
    if not settings.kafka_bootstrap_servers:
        raise SettingsError("KAFKA_BOOTSTRAP_SERVERS is not set; name the brokers, e.g. kafka-1:9092,kafka-2:9092")
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "client_id": "flo",
        "security_protocol": str(settings.kafka_security),
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    if settings.kafka_security in (KafkaSecurity.SSL, KafkaSecurity.SASL_SSL):
        options["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ca_file)
    if settings.kafka_security in (KafkaSecurity.SASL_PLAINTEXT, KafkaSecurity.SASL_SSL):
        if settings.kafka_username is None or settings.kafka_password is None:
            raise SettingsError(
                f"KAFKA_SECURITY_PROTOCOL is {settings.kafka_security}: set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            )
        options |= {
            "sasl_mechanism": str(settings.kafka_sasl),
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return options


async def ensure_topics(admin: AIOKafkaAdminClient, settings: Settings, topics: Iterable[str]) -> None:
    """Make those of the topics that are missing. Raises Unavailable, naming topic and permission, or KafkaError."""
    missing = sorted(set(topics) - set(await admin.list_topics()))
    if not missing:
        return
    # Dead messages are few, and nobody shares them out.
    sizes = {topic: 1 if topic.endswith(_DEAD) else settings.kafka_partitions for topic in missing}
    copies = settings.kafka_replication
    # aiokafka takes -1, "as the broker likes", only beside an assignment, which may be empty.
    by_hand: dict[int, list[int]] | None = {} if copies == -1 else None
    new = [NewTopic(topic, size, copies, by_hand) for topic, size in sizes.items()]
    answer = await admin.create_topics(new)
    for topic, code, *rest in answer.topic_errors:
        error = for_code(code)
        if code == 0:
            log.info("kafka.topic_made", topic=topic, partitions=sizes[topic])
        elif error is not TopicAlreadyExistsError:
            reason = (rest[0] if rest else None) or error.__name__
            raise Unavailable(
                f"Kafka has no topic {topic!r} and refused to make it ({reason}); make it by hand, or let this user "
                f"create topics (KAFKA_PARTITIONS={settings.kafka_partitions}, "
                f"KAFKA_REPLICATION_FACTOR={settings.kafka_replication})"
            )


def unavailable(settings: Settings, error: BaseException) -> Unavailable:
    """Word an error of aiokafka, with the fix."""
    reason = str(error) or type(error).__name__
    return Unavailable(
        f"Kafka at {settings.kafka_bootstrap_servers} does not answer ({reason}); start it, or correct "
        "KAFKA_BOOTSTRAP_SERVERS and the KAFKA_S* settings"
    )


#: What aiokafka raises when a broker is away or refuses.
KAFKA_ERRORS = (KafkaError, OSError, TimeoutError)
