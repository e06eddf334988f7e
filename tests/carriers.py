"""The settings of each carrier, as a process gets them, with names of their own for each test."""

from __future__ import annotations

import secrets

import pytest

from tests import servers

#: A Redis that is not there: on SQS and Kafka nothing may need one.
NO_REDIS = "redis://127.0.0.1:1/0"


def environment(request: pytest.FixtureRequest, carrier: str) -> dict[str, str]:
    """Give the variables that choose a carrier, with its server running."""
    match carrier:
        case "redis":
            return {"ASYNC_EXECUTION_BACKEND": "redis", "REDIS_URL": request.getfixturevalue("redis_url")}
        case "sqs" | "sqs-fifo":
            server: servers.SqsServer = request.getfixturevalue("sqs_server")
            return {
                **server.environment,
                "ASYNC_EXECUTION_BACKEND": "sqs",
                "SQS_QUEUE_PREFIX": f"t{secrets.token_hex(4)}-",
                "SQS_FIFO": str(carrier == "sqs-fifo"),
                "REDIS_URL": NO_REDIS,
            }
        case "kafka":
            return kafka_environment(request.getfixturevalue("kafka_address"))
    raise AssertionError(carrier)


def kafka_environment(address: str) -> dict[str, str]:
    """Give the variables for a Kafka at this address."""
    mine = f"t{secrets.token_hex(4)}-"
    return {
        "ASYNC_EXECUTION_BACKEND": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_TOPIC_PREFIX": mine,
        "KAFKA_CONSUMER_GROUP": mine,
        "KAFKA_PARTITIONS": "4",
        "REDIS_URL": NO_REDIS,
    }


#: Whoever uses SQS in this process needs credentials in its environment: boto3 looks for them there.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
