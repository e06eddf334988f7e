from __future__ import annotations

import logging

from dispatch.queues.kafka_log import Seldom


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("aiokafka.conn", logging.ERROR, "", 0, text, None, None)


def test_a_line_that_repeats_itself_is_written_once() -> None:
    seldom = Seldom()

    assert [seldom.filter(line(text)) for text in ("refused", "refused", "closed", "refused")] == [
        True,
        False,
        True,
        False,
    ]
