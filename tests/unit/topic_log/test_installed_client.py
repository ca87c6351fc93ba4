"""A start needs exactly one of the two clients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kafka

from tests.support.processes import ended

NONE = """
import sys
sys.modules["kafka"] = None
import wsgi
"""


def test_without_a_client_a_start_says_what_to_do():
    said = ended([sys.executable, "-c", NONE])
    assert said.returncode == 4
    assert said.stderr.startswith("Error: there is no Kafka client (")
    assert "pip install '.[kafka-python]'" in said.stderr
    assert said.stderr.count("\n") == 1


ANOTHER_VERSION = """
from kafka.record.default_records import DefaultRecordBatch
del DefaultRecordBatch._read_msg
import wsgi
"""


def test_a_client_without_a_private_name_that_is_leaned_on_ends_the_start_with_a_line():
    said = ended([sys.executable, "-c", ANOTHER_VERSION])
    assert said.returncode == 4
    assert said.stderr.startswith("Error: the Kafka client is of another version than this service")
    assert "DefaultRecordBatch has no _read_msg, it had one in kafka-python" in said.stderr
    assert said.stderr.count("\n") == 1


def both_clients(folder: Path) -> None:
    """As pip leaves them: one over the other, and each says that it is installed."""
    (folder / "kafka").symlink_to(Path(kafka.__file__).parent)
    for name in ("kafka_python", "kafka_python_ng"):
        said = folder / f"{name}-3.0.dist-info" / "METADATA"
        said.parent.mkdir()
        said.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 3.0\n")


def test_with_both_clients_a_start_says_what_to_do(tmp_path):
    both_clients(tmp_path)
    said = ended([sys.executable, "-c", "import wsgi"], PYTHONPATH=str(tmp_path))
    assert said.returncode == 4
    assert said.stderr.startswith(f"Error: both Kafka clients are in {tmp_path}")
    assert "pip uninstall --yes kafka-python kafka-python-ng; pip install" in said.stderr


def test_gunicorn_without_its_configuration_does_not_try_for_ever(tmp_path):
    both_clients(tmp_path)
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"]
    environ = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}", "KAFKA_TOPIC": "t"}
    said: subprocess.CompletedProcess[str] = ended(command, cwd=tmp_path, **environ)
    assert said.returncode != 0
    assert said.stderr.count("Booting worker") == 1
    assert "Error: both Kafka clients" in said.stderr
