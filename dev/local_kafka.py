"""`python -m dev.local_kafka` is what `make kafka` runs: an Apache Kafka until Ctrl-C."""

from __future__ import annotations

import signal
import sys

from dev import apache_kafka
from dev.broker import answers

PORT = 9092
LOCAL = f"localhost:{PORT}"


def main() -> str | None:
    """Run it until there is a signal; gives what went wrong."""
    if not apache_kafka.available():
        return "Error: an Apache Kafka needs java, 17 or newer, and mvn, which fetches it"
    if answers(LOCAL):
        return f"Error: there is a broker at {LOCAL} already"
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop_signal, signal.default_int_handler)
    try:
        print(f"Starting Apache Kafka {apache_kafka.version()} ...", flush=True)
        with apache_kafka.running(apache_kafka.LEFT_ALONE, port=PORT) as kafka:
            print(
                f"Apache Kafka {apache_kafka.version()} answers at {kafka.address}; Ctrl-C stops "
                "it, and what it holds is gone then",
                flush=True,
            )
            signal.pause()
    except KeyboardInterrupt:
        return None
    except RuntimeError as error:
        return f"Error: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
