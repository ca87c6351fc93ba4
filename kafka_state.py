"""`kafka-state`, the command that `pip install` gives."""

import signal

# before the imports that take their time, so that an early Ctrl-C is a quiet one
signal.signal(signal.SIGINT, signal.SIG_DFL)

from app.commands import main

signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]

if __name__ == "__main__":
    main()
