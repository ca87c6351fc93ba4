"""The manifest for Kubernetes; tests/integration/deploy/test_environment.py runs its settings."""

from __future__ import annotations

import pytest

from app.settings import Settings, unknown_names
from app.settings.model import ModelSettings
from tests.support.deployment import (
    DEPLOY,
    check,
    dockerfile,
    gunicorn_setting,
    kubernetes,
    kubernetes_environ,
)

POD = kubernetes()["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_it_is_what_kubernetes_reads():
    check("kubernetes-validate", "--strict", DEPLOY / "kubernetes/kafka-state.yaml")


def test_the_service_has_settings_that_make_sense(tmp_path):
    (tmp_path / "kafka-password").write_text("a-password")
    (tmp_path / "api-token").write_text("a-token-of-16-letters")
    environ = kubernetes_environ({"/etc/kafka-state": tmp_path})
    settings = Settings.from_environ(environ)
    assert settings.security.protocol == "SASL_SSL"
    assert settings.api_tokens() == ("a-token-of-16-letters",)
    assert unknown_names(environ) == []


def test_what_is_written_is_written_to_what_is_mounted():
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    environ = kubernetes_environ({})
    for variable in ("STATE_CACHE_DIR", "MODEL_CACHE_DIR"):
        assert environ[variable].startswith(mounts["cache"]["mountPath"])
    for variable in ("KAFKA_SASL_PASSWORD_FILE", "API_TOKEN_FILE"):
        assert environ[variable].startswith(mounts["secrets"]["mountPath"])


def test_the_disk_that_the_pod_may_use_holds_what_it_writes():
    (volume,) = [volume["emptyDir"] for volume in POD["volumes"] if "emptyDir" in volume]
    assert _bytes(volume["sizeLimit"]) > ModelSettings().cache_bytes
    for amounts in CONTAINER["resources"].values():
        assert _bytes(amounts["ephemeral-storage"]) > _bytes(volume["sizeLimit"])


def _bytes(size: str) -> int:
    return int(size.removesuffix("Gi")) * 2**30


def test_a_secret_that_changes_is_seen():
    # what is mounted by subPath never changes
    assert all("subPath" not in mount for mount in CONTAINER["volumeMounts"])


def test_it_has_no_rights():
    assert POD["securityContext"]["runAsNonRoot"]
    (user,) = [line.arguments for line in dockerfile() if line.keyword == "USER"]
    assert POD["securityContext"]["runAsUser"] == int(user)
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not POD["automountServiceAccountToken"]


def test_a_stop_has_the_time_that_it_takes():
    drain = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > drain + gunicorn_setting("graceful_timeout") + 1


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
def test_it_means_the_pods_of_the_deployment(kind):
    chosen = kubernetes()[kind]["spec"]["selector"]
    labels = kubernetes()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert chosen.get("matchLabels", chosen).items() <= labels.items()


def test_probes_and_service_go_to_the_port_that_is_listened_on():
    (port,) = CONTAINER["ports"]
    (environ,) = [line.arguments for line in dockerfile() if line.keyword == "ENV"]
    assert f"PORT={port['containerPort']} " in environ
    (served,) = kubernetes()["Service"]["spec"]["ports"]
    probes = [CONTAINER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
    assert {port["name"], served["targetPort"], *(p["httpGet"]["port"] for p in probes)} == {"http"}
