"""A reload runs the code that is on the disk by then.

It imports nothing of this package, for what it has imported by then is forgotten.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile


def forget_app(but: str | None = None) -> None:
    """Have this package imported anew, but for the modules of the package `but`."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "app" and not (but and f"{name}.".startswith(f"{but}.")):
            del sys.modules[name]


def name_metrics_folder() -> None:
    """Name the folder where the workers' metrics meet; those of a master started by SIGUSR2 are
    elsewhere.

    Before prometheus_client is imported, which looks for it. It is made when it is needed: not
    where options are only checked.
    """
    if "prometheus_client" in sys.modules:
        return
    folder = os.path.join(tempfile.gettempdir(), f"kafka-state-metrics-{secrets.token_hex(8)}")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
