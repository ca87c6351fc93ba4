"""Which of the Kafka clients the tests run with."""

from app.topic_log.installed import adapter

IS_KAFKA_PYTHON_3 = adapter.NAME == "kafka-python"
