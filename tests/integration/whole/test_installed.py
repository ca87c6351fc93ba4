"""What `pip install` leaves, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.installation import INSTALL_SECONDS, pip
from tests.support.processes import ROOT, copy_program, ended, free_port, running
from tests.support.topics import Topic

pytestmark = pytest.mark.xdist_group("installed")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[str, Path]:
    """The client, the same as here, and the folder of the commands."""
    client = "kafka-python" if IS_KAFKA_PYTHON_3 else "kafka-python-ng"
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    copy_program(source)
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "kafka_state.py"):
        shutil.copy(ROOT / name, source)
    bin = folder / "venv" / "bin"
    environ = {**os.environ, "PYTHONPATH": ""}
    # as the README says it, in the folder of the clone; but with the uv that there is
    create = [sys.executable, "-m", "venv", "--without-pip", str(bin.parent)]
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(bin.parent)]
    install = [*uv, "-c", "constraints.txt", f".[{client}]"]
    for command in (create, install):
        subprocess.run(command, cwd=source, env=environ, check=True, timeout=INSTALL_SECONDS)
    shutil.rmtree(source)
    return client, bin


@pytest.mark.installs
@pytest.mark.timeout(INSTALL_SECONDS + 60)
def test_exactly_one_client_is_there_and_nothing_is_missing(installed):
    client, bin = installed
    listed = ended([*pip(bin / "python"), "list", "--format=freeze"], PYTHONPATH="").stdout
    clients = [line for line in listed.splitlines() if line.startswith("kafka-python")]
    assert [line.partition("==")[0] for line in clients] == [client]
    assert ended([*pip(bin / "python"), "check"], PYTHONPATH="").returncode == 0


@pytest.mark.installs
@pytest.mark.timeout(INSTALL_SECONDS + 60)
@pytest.mark.apache_kafka
def test_it_serves_in_a_folder_that_has_nothing_of_it(installed, topic: Topic, tmp_path):
    client, bin = installed
    environ = {
        **topic.environ,
        "PYTHONPATH": "",
    }
    kafka_state = str(bin / "kafka-state")
    port = free_port()
    with running(
        [kafka_state, "serve"],
        port,
        {**environ, "PORT": str(port)},
        tmp_path / "output",
        cwd=tmp_path,
    ) as program:
        program.comes_to(0)
        command = [kafka_state, "produce", "--state", "77", "--wait", f"localhost:{port}"]
        assert ended(command, cwd=tmp_path, **environ).returncode == 0
        assert program.get().json() == {"state": 77}
        assert f"{client} " in program.get("/status").json()["client"]
        assert program.get("/openapi.json").status_code == 200
        assert program.get("/docs").status_code == 200
    assert ended([kafka_state, "check"], cwd=tmp_path, **environ).returncode == 0
