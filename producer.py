"""Send state messages to the topic that the service follows: the same as `kafka-state produce`."""

import sys

try:
    from kafka_state import main
except ModuleNotFoundError as error:
    sys.exit(
        f"Error: {error}, which comes with the service: make install, then "
        ".venv/bin/python producer.py"
    )

if __name__ == "__main__":
    main(["produce", *sys.argv[1:]], prog_name="kafka-state")
