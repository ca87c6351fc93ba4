"""Which Kafka client is installed; a start without exactly one of them ends here."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from app.topic_log.adapter import Adapter

NG, KAFKA_PYTHON = "kafka-python-ng", "kafka-python"
HOW = (
    f"install one of them: pip uninstall --yes {KAFKA_PYTHON} {NG}; pip install '.[{KAFKA_PYTHON}]'"
)

# gunicorn's own for an application that cannot be loaded: it starts no other worker
CANNOT_LOAD = 4


def _end(told: str) -> NoReturn:
    print(f"Error: {told}", file=sys.stderr)
    sys.exit(CANNOT_LOAD)


def _adapter() -> Adapter:
    if importlib.util.find_spec("kafka.net"):
        from app.topic_log import kafka_python_3

        return kafka_python_3
    from app.topic_log import kafka_python_ng

    return kafka_python_ng


def _is_of_the_client(error: ImportError) -> bool:
    """Whether it is no package that the client needs."""
    return not error.name or error.name.partition(".")[0] == "kafka"


try:
    import kafka
except ImportError as error:
    if not _is_of_the_client(error):
        raise
    _end(f"there is no Kafka client ({error}): {HOW}")

_FOLDER = Path(kafka.__file__).parent.parent
if all(any(distributions(name=name, path=[str(_FOLDER)])) for name in (NG, KAFKA_PYTHON)):
    _end(f"both Kafka clients are in {_FOLDER}, and each has overwritten files of the other: {HOW}")

try:
    adapter = _adapter()
except ImportError as error:
    if not _is_of_the_client(error):
        raise
    _end(f"the Kafka client is of another version than this service is made for ({error}): {HOW}")

CLIENT = f"{adapter.NAME} {kafka.__version__}"
