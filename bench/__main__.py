"""`python -m bench` is what `make bench` runs."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import click

from bench import load, report
from bench.run import Bench
from bench.suites import SUITES
from dev import apache_kafka

HERE = Path(__file__).parent
NUMBERS = HERE / "results.json"
# it takes ten minutes by itself
NOT_UNLESS_NAMED = {"memory"}


def _suites(context: click.Context, parameter: click.Parameter, given: str) -> list[str]:
    names = given.split()
    for name in names:
        if name not in SUITES:
            raise click.BadParameter(f"{name!r}: accepted are {', '.join(SUITES)}")
    return names


@click.command(help="Measure this service, its peers and the bare limits, side by side.")
@click.option("--quick", is_flag=True, help="Once each and briefly; only prints the table.")
@click.option(
    "--only",
    default="",
    callback=_suites,
    help="Measure these, separated by spaces; of the rest the table has what was measured before.",
)
def main(quick: bool, only: list[str]) -> None:
    if not apache_kafka.available():
        raise click.ClickException("a real Apache Kafka needs java, and mvn to fetch it")
    chosen = only or [name for name in SUITES if name not in NOT_UNLESS_NAMED]
    began = time.monotonic()
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() and not quick else {}
    with (
        apache_kafka.running() as kafka,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        click.progressbar(length=0, item_show_func=lambda step: step) as bar,
    ):
        bench = Bench(
            kafka.address,
            Path(folder),
            repeats=1 if quick else 5,
            slices=1 if quick else 15,
            seconds=1.0 if quick else 2.0,
            patience=3.0 if quick else 10.0,
            progress=lambda step: bar.update(1, step),
        )
        bar.length = sum(SUITES[name].steps(bench) for name in chosen)
        for name in chosen:
            numbers[name] = {
                "measured": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
                "with": f"Apache Kafka {apache_kafka.version()}, Python "
                f"{platform.python_version()}, {load.name()}",
                "numbers": SUITES[name].measure(bench),
            }
        assert bar.pos == bar.length, f"{bar.pos} steps and not {bar.length}"
    click.echo(report.table(numbers))
    click.echo(f"{time.monotonic() - began:.0f} s")
    if not quick:
        rounded = json.loads(json.dumps(numbers), parse_float=lambda text: round(float(text), 6))
        NUMBERS.write_text(json.dumps(rounded, separators=(",", ":")) + "\n")
        (HERE / "results.md").write_text(report.page(numbers))
        report.plot(numbers, HERE / "results.svg")


if __name__ == "__main__":
    main()
