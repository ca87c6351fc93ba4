"""`python -m examples.model` is what `make demo-model` runs."""

import signal
import sys

# until something is started that has to be ended, Ctrl-C is at once and quiet: the imports take
# seconds
signal.signal(signal.SIGINT, signal.SIG_DFL)

from .demo import main

sys.exit(main())
