"""The service with the environment that the Kubernetes manifest gives it."""

from __future__ import annotations

import pytest

from tests.support.deployment import kubernetes, kubernetes_environ
from tests.support.processes import ROOT, ended, free_port, gunicorn, kafka_state, running
from tests.support.secret_files import SecretFiles
from tests.support.waiting import eventually

TOKEN = "a-token-of-16-letters"
(CONTAINER,) = kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]
LIVENESS = CONTAINER["livenessProbe"]["httpGet"]["path"]
READINESS = CONTAINER["readinessProbe"]["httpGet"]["path"]


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    secrets = {"kafka-password": "a-password\n", "api-token": f"{TOKEN}\n"}
    SecretFiles(tmp_path / "secrets", secrets)
    folders = {"/etc/kafka-state": tmp_path / "secrets", "/var/cache": tmp_path / "cache"}
    return {**kubernetes_environ(folders), "PORT": str(free_port())}


def test_without_a_broker_it_is_alive_and_not_ready(environ, tmp_path):
    environ["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    with running(gunicorn(), int(environ["PORT"]), environ, tmp_path / "output") as program:
        assert eventually(lambda: program.get(LIVENESS)).status_code == 200
        assert program.get(READINESS).status_code == 503
        assert program.get("/state").status_code == 401


def test_with_a_model_it_is_ready(environ, topic, tmp_path):
    # the broker here wants no password
    without = ("SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD_FILE")
    environ |= {f"KAFKA_{name}": "" for name in without}
    environ |= topic.environ
    model = ["--model", str(ROOT / "examples/model/sum.onnx"), "--version", "7"]
    with running(gunicorn(), int(environ["PORT"]), environ, tmp_path / "output") as program:
        eventually(lambda: program.get(LIVENESS))
        assert ended([*kafka_state(), "produce", *model], **topic.environ).returncode == 0
        eventually(lambda: program.get(READINESS).ok)
        assert program.get(LIVENESS).ok
    cache = tmp_path / "cache/kafka-state"
    assert list(cache.glob("models/*/model.onnx"))
    eventually(lambda: list(cache.glob("state/*.state")))
