"""The files that one deploys with, and the programs that check them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.installation import found_or_skipped
from tests.support.processes import ROOT

DEPLOY = ROOT / "deploy"
CHECK_SECONDS = 60


class Instruction(NamedTuple):
    """A line of a Dockerfile."""

    keyword: str
    arguments: str

    @property
    def command(self) -> list[str]:
        """
        Raises:
            ValueError: it is not in the exec form, so that a shell would stand before the program.
        """
        command: list[str] = json.loads(self.arguments[self.arguments.index("[") :])
        return command


def dockerfile() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line]


def kubernetes() -> dict[str, Any]:
    """The objects of the manifest, by kind."""
    text = (DEPLOY / "kubernetes/kafka-state.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def kubernetes_environ(paths: Mapping[str, Path]) -> dict[str, str]:
    """What the manifest's container has in its environment.

    Args:
        paths: by folder of the container, where that is here.
    """
    (container,) = kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    for there, here in paths.items():
        environ = {name: value.replace(there, str(here)) for name, value in environ.items()}
    return environ


def gunicorn_setting(name: str) -> int:
    """A number of the packaged configuration, which has effects where it is imported."""
    text = (ROOT / "app/server/gunicorn.conf.py").read_text()
    (value,) = re.findall(rf"^{name} = (\d+)$", text, re.MULTILINE)
    return int(value)


def check(program: str, *arguments: object, package: str = "") -> str:
    """Run a program that ends with 0 if all is well; gives its output.

    The test is skipped where it is not.

    Args:
        package: of Debian's, that has it; otherwise it comes with the extra `deploy`.
    """
    where = f"in Debian's {package}" if package else "installed by `make .venv/with-deploy`"
    done = subprocess.run(
        [found_or_skipped(program, where), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
