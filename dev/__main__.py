"""`python -m dev` is what `make run` runs."""

import signal
import sys

stop_signals: list[int] = []
for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    # before the imports that take their time, so that an early Ctrl-C is a quiet one; it raises
    # nothing, for an import may catch what is raised in it, and takes no lock, for make passes on
    # what the terminal sent as well and the second signal may come while the first is handled
    signal.signal(stop_signal, lambda number, _: stop_signals.append(number))

from dev.run import main

sys.exit(main(stop_signals))
