"""`python -m dev` is what `make run` runs."""

import signal
import sys
import threading

stopping = threading.Event()
for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    # before the imports that take their time, so that an early Ctrl-C is a quiet one; and it
    # raises nothing, for an import may catch what is raised in it
    signal.signal(stop_signal, lambda *_: stopping.set())

from dev.run import main

sys.exit(main(stopping))
