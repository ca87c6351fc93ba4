"""`python -m bench.growth` is what `make growth` runs."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import psutil

from bench.growth import page
from bench.growth.counters import watched
from bench.growth.measuring import QUIET_SECONDS, SCENARIOS, WARM_UP, Measuring, Scenario
from dev import apache_kafka

HERE = Path(__file__).parent
NUMBERS = HERE / "results.json"


WARM_UP_SECONDS = 5


@click.command(help="Measure what many instances cost one broker, all on this machine.")
@click.option("--quick", is_flag=True, help="Two instances, and briefly; only prints the page.")
@click.option(
    "--instances",
    type=int,
    multiple=True,
    help="Measure with so many; of the rest the page has what was measured before.",
)
def main(quick: bool, instances: tuple[int, ...]) -> None:
    if not apache_kafka.available():
        raise click.ClickException("a real Apache Kafka needs java, and mvn to fetch it")
    known = {scenario.instances for scenario in SCENARIOS}
    if unknown := {*instances} - known:
        raise click.BadParameter(f"{sorted(unknown)}: accepted are {sorted(known)}")
    scenarios: Sequence[Scenario] = (Scenario(0), Scenario(2, restarts=True))
    if not quick:
        scenarios = [of for of in SCENARIOS if not instances or of.instances in instances]
    results = json.loads(NUMBERS.read_text()) if NUMBERS.exists() and not quick else {}
    began = time.monotonic()

    def tell(step: str) -> None:
        click.echo(f"{time.monotonic() - began:4.0f} s  {step}", err=True)

    with watched() as broker, tempfile.TemporaryDirectory(prefix="growth-") as folder:
        if not quick:
            tell("warming up")
            Measuring(broker, Path(folder), WARM_UP_SECONDS, tell).measure(WARM_UP)
        measuring = Measuring(broker, Path(folder), 3 if quick else QUIET_SECONDS, tell)
        for scenario in scenarios:
            tell(scenario.title)
            results[scenario.title] = {
                "instances": scenario.instances,
                "client": scenario.service.name,
                "commits": scenario.commits,
                "with": _machine(),
                "load": psutil.getloadavg()[0],
                "numbers": measuring.measure(scenario),
            }
            if not quick:  # what is there so far
                _write(results)
    click.echo(page.page(results))


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Apache Kafka {apache_kafka.version()}, Python {platform.python_version()}, "
        f"{psutil.cpu_count()} cores and {memory:.0f} GiB on {datetime.now(timezone.utc):%Y-%m-%d}"
    )


def _write(results: dict[str, Any]) -> None:
    rounded = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 4))
    NUMBERS.write_text(json.dumps(rounded, separators=(",", ":")) + "\n")
    (HERE / "results.md").write_text(page.page(results))


if __name__ == "__main__":
    main()
