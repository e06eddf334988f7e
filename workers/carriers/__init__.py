"""Jobs that come by SQS or Kafka, on the dispatcher's loop, while Celery keeps pool, signals, drain and Flower.

Read `source.py` first, then `intake.py`; `step.py` is what Celery sees of it.
"""
