"""A broker that carries nothing: for a worker whose jobs come from SQS or Kafka and that has no Redis for control."""

from __future__ import annotations

from kombu.transport import memory
from kombu.transport.virtual import Transport


class NoBroker(memory.Transport):  # type: ignore[misc]
    """Kombu's in-memory transport, which Celery's event loop takes for one that it need not poll."""

    implements = Transport.implements.extend(asynchronous=True)
