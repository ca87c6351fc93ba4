"""Send state messages to the topic that the service follows: the same as `kafka-state produce`."""

import sys

from kafka_state import main

if __name__ == "__main__":
    main(["produce", *sys.argv[1:]], prog_name="kafka-state")
