"""The image that the Dockerfile makes, built and run by Podman, which needs no daemon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.processes import ROOT, free_port
from tests.support.topics import Topic
from tests.support.waiting import eventually

BASE = "docker.io/library/python:3.13-slim-trixie"
IMAGE = "localhost/kafka-state-test"
CLIENT = "kafka-python" if IS_KAFKA_PYTHON_3 else "kafka-python-ng"
# as on a machine that systemd does not run on
PODMAN = ["podman", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc"]
# less than what Podman asks for, which a container in a container may not have
LIMITS = ["--ulimit=nofile=10000:10000", "--ulimit=nproc=4096:4096"]
# nothing but what the image itself says is writable
READ_ONLY = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all"]
READ_ONLY += ["--security-opt=no-new-privileges"]
BUILD_SECONDS, COMMAND_SECONDS, STOP_SECONDS = 400, 60, 10
# no interpreter has imported anything before
START_SECONDS = 60


@contextlib.contextmanager
def built(*extras: str) -> Iterator[None]:
    """Build the image, which is removed at the end. The test is skipped where it cannot be."""
    for program in ("podman", "runc"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not here: it is in Debian's packages")
    if os.geteuid() != 0:
        pytest.skip("containers are run as root here, for one is given fewer rights than that")
    if podman("image", "exists", BASE, check=False).returncode:
        pytest.skip(f"{BASE} is not here: pull it, or make one with dev/base-image")
    arguments = [f"--build-arg=KAFKA_CLIENT={CLIENT}", f"--build-arg=EXTRAS={','.join(extras)}"]
    # in the format that has a health check; nothing is left of the first stage
    options = ["--format=docker", "--isolation=chroot", "--pull=never", "--layers=false"]
    podman("build", *options, *arguments, f"--tag={IMAGE}", str(ROOT), seconds=BUILD_SECONDS)
    try:
        yield
    finally:
        podman("image", "rm", IMAGE)


def podman(
    *arguments: str, seconds: float = COMMAND_SECONDS, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PODMAN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


class Container:
    """One that runs; what it listens on is a port of this machine."""

    def __init__(self, name: str, port: int) -> None:
        self.port = port
        self._name = name

    def get(self, path: str = "/state") -> requests.Response | None:
        """The answer, or None while nobody answers."""
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        assert self.inspect()["State"]["Running"], self.logs()
        return None

    def starts(self, ready: str = "/readyz") -> None:
        """Wait until it is ready, by the path of that."""
        eventually(lambda: (answer := self.get(ready)) is not None and answer.ok, START_SECONDS)

    def ends(self) -> str:
        """Wait until it has ended by itself; gives what it has said."""
        eventually(lambda: not self.inspect()["State"]["Running"], START_SECONDS)
        return self.logs().strip()

    def run(self, *command: str) -> str:
        """Run a command in it; gives the output."""
        return podman("exec", self._name, *command).stdout

    def health(self, **environ: str) -> int:
        """The exit status of the image's health check; variables come on top."""
        kind, *command = self.inspect()["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD"
        given = [f"--env={name}={value}" for name, value in environ.items()]
        return podman("exec", *given, self._name, *command, check=False).returncode

    def stop(self) -> int:
        """As an orchestrator does; gives the exit status, 137 of one that had to be killed."""
        podman("stop", f"--time={STOP_SECONDS}", self._name)
        return int(self.inspect()["State"]["ExitCode"])

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(podman("container", "inspect", self._name).stdout)[0]
        return found

    def logs(self) -> str:
        return podman("logs", self._name).stdout


@contextlib.contextmanager
def container(topic: Topic, *options: str, **environ: str) -> Iterator[Container]:
    """Run the image on a topic, with a root file system that nobody can write to.

    Args:
        options: of Podman.
        environ: settings that come on top.
    """
    port = free_port()
    name = f"{topic.name}-{port}"
    settings = {**topic.environ, "PORT": str(port), **environ}
    given = [f"--env={variable}={value}" for variable, value in settings.items()]
    # the broker is one of this machine. Who has a timer for the health check needs systemd
    always = ["--detach", f"--name={name}", "--network=host", "--health-interval=disable"]
    podman("run", *always, *READ_ONLY, *LIMITS, *options, *given, IMAGE)
    running = Container(name, port)
    try:
        yield running
        print(running.logs())
    finally:
        podman("rm", "--force", "--volumes", "--time=0", name)
