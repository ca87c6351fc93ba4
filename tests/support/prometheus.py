"""A Prometheus that scrapes a service, configured as docs/metrics.md has it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.support.processes import ROOT, Program, free_port, running
from tests.support.waiting import eventually

SCRAPE_SECONDS = 1


class Prometheus:
    def __init__(self, program: Program) -> None:
        self._program = program

    def ask(self, path: str, **parameters: str) -> Any:
        """Give the data of its API's answer."""
        url = f"http://127.0.0.1:{self._program.port}/api/v1/{path}"
        answer = requests.get(url, params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """What a query gives now, of each series; without those that are no number."""
        results = self.ask("query", query=query)["result"]
        values = [float(result["value"][1]) for result in results]
        return [value for value in values if not math.isnan(value)]


@contextlib.contextmanager
def scraping(service: Program, folder: Path) -> Iterator[Prometheus]:
    """Run one; only targets, rules' path and pauses are others than in the page."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(service.port)))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, port, {}, folder / "prometheus", folder) as program:
        eventually(lambda: (answer := program.get("/-/ready")) is not None and answer.ok)
        yield Prometheus(program)


def _config(port: int) -> dict[str, Any]:
    page = (ROOT / "docs/metrics.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert block
    config: dict[str, Any] = yaml.safe_load(block[1])
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    config["rule_files"] = [str(ROOT / path) for path in config["rule_files"]]
    pause = f"{SCRAPE_SECONDS}s"
    config["global"] = {"scrape_interval": pause, "evaluation_interval": pause}
    return config
