"""The commands of `kafka-state`."""

from __future__ import annotations

import click

from app.commands.check import check
from app.commands.produce import produce
from app.commands.serve import serve
from app.commands.status import status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kafka-state", message="%(package)s %(version)s")
def main() -> None:
    """A web service whose state is the newest valid message of a Kafka topic.

    The topic and the brokers come from the environment: KAFKA_TOPIC, KAFKA_BOOTSTRAP_SERVERS and
    the other settings, which docs/settings.md lists.
    """


for command in (serve, produce, check, status):
    main.add_command(command)
