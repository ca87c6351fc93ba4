"""`python -m dev` is what `make run` runs."""

import signal
import sys

from dev import STOP_SIGNALS

for stop_signal in STOP_SIGNALS:
    # before the imports that take their time, so that an early Ctrl-C is a quiet one
    signal.signal(stop_signal, lambda *_: sys.exit())

from dev.run import main

sys.exit(main())
