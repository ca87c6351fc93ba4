"""Which of the two clients is installed under the name of kafka."""

from __future__ import annotations

import importlib.util

import kafka

IS_KAFKA_PYTHON_3 = importlib.util.find_spec("kafka.net") is not None
CLIENT = f"{'kafka-python' if IS_KAFKA_PYTHON_3 else 'kafka-python-ng'} {kafka.__version__}"
