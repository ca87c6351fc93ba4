"""Send state messages to the topic that the service follows: the same as `kafka-state produce`."""

import signal

# before the imports that take their time, so that an early Ctrl-C is a quiet one
signal.signal(signal.SIGINT, signal.SIG_DFL)

from app.commands.produce import produce

signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    produce()
