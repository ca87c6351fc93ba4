"""Clients that public generators make of /openapi.json."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installation import INSTALL_SECONDS, pip
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.installs,
    pytest.mark.xdist_group("generated_clients"),
    pytest.mark.timeout(INSTALL_SECONDS + 60),
]

GENERATORS = ["openapi-python-client==0.29.1", "openapi-generator-cli==7.26.0"]
# of what the second makes
NEEDS = ["pydantic", "python-dateutil", "urllib3"]

OPENAPI_PYTHON_CLIENT = """
from client import Client
from client.api.default import history, state, status

client = Client(base_url={url!r})
print(state.sync(client=client).state)
print([served.state for served in history.sync(client=client).states])
print([refused.reason for refused in history.sync(client=client).refused])
print(status.sync(client=client).topic)
"""
OPENAPI_GENERATOR = """
from openapi_client import ApiClient, Configuration, DefaultApi

api = DefaultApi(ApiClient(Configuration(host={url!r})))
print(api.state().state)
print([served.state for served in api.history().states])
print([refused.reason for refused in api.history().refused])
print(api.status().topic)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generators") / "packages"
    install = [*pip(Path(sys.executable)), "install", "-q", "--no-compile", "--target", str(folder)]
    run([*install, *GENERATORS, *NEEDS])
    return folder


@pytest.mark.parametrize(
    ("generate", "script"),
    [
        pytest.param(
            [
                *("{python}", "-m", "openapi_python_client", "generate", "--meta", "none"),
                *("--url", "{url}/openapi.json", "--output-path", "{out}/client"),
            ],
            OPENAPI_PYTHON_CLIENT,
            id="openapi-python-client",
        ),
        pytest.param(
            [
                *("java", "-jar", "{packages}/openapi_generator_cli/openapi-generator.jar"),
                *("generate", "-i", "{url}/openapi.json", "-g", "python", "-o", "{out}"),
            ],
            OPENAPI_GENERATOR,
            id="openapi-generator",
        ),
    ],
)
def test_asks_for_state_history_and_status(packages, topic, serving, tmp_path, generate, script):
    topic.send_state(7)
    with serving() as program:
        program.comes_to(7)
        topic.send(b"not JSON")
        # one that a valid message follows at once is not looked at
        eventually(lambda: program.get("/state/history").json()["refused"])
        topic.send_state(8)
        program.comes_to(8)
        url = f"http://127.0.0.1:{program.port}"
        given = {"python": sys.executable, "url": url, "packages": packages, "out": tmp_path}
        run([word.format(**given) for word in generate], packages)
        (tmp_path / "script.py").write_text(script.format(url=url))
        said = run([sys.executable, str(tmp_path / "script.py")], packages)
        assert said.splitlines() == ["8", "[8, 7]", "['json']", topic.name]


def run(command: list[str], packages: Path | None = None) -> str:
    environ = {
        **os.environ,
        "PYTHONPATH": str(packages or ""),
        # one of them calls ruff, which comes with it
        "PATH": f"{packages}/bin:{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, env=environ, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
