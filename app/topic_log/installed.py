"""Which of the two clients is installed under the name of kafka; a start without exactly one of
them ends here."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import NoReturn

NG, KAFKA_PYTHON = "kafka-python-ng", "kafka-python"
HOW = (
    f"install one of them: pip uninstall --yes {KAFKA_PYTHON} {NG}; pip install '.[{KAFKA_PYTHON}]'"
)

# gunicorn's own for an application that cannot be loaded: it starts no other worker
CANNOT_LOAD = 4


def _end(told: str) -> NoReturn:
    print(f"Error: {told}", file=sys.stderr)
    sys.exit(CANNOT_LOAD)


try:
    import kafka
except ImportError as error:
    if error.name and error.name.partition(".")[0] != "kafka":
        raise  # something that the client needs
    _end(f"there is no Kafka client ({error}): {HOW}")

_FOLDER = Path(kafka.__file__).parent.parent
if all(any(distributions(name=name, path=[str(_FOLDER)])) for name in (NG, KAFKA_PYTHON)):
    _end(f"both Kafka clients are in {_FOLDER}, and each has overwritten files of the other: {HOW}")

IS_KAFKA_PYTHON_3 = importlib.util.find_spec("kafka.net") is not None
CLIENT = f"{KAFKA_PYTHON if IS_KAFKA_PYTHON_3 else NG} {kafka.__version__}"
