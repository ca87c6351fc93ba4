"""What has to happen before this package is imported, at a start and at a reload.

It imports nothing of this package itself: that would be forgotten at a reload.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile


def forget_app(except_for: str = "nothing") -> None:
    """Have this package imported anew, as it is on the disk by then.

    Args:
        except_for: a package within it whose modules stay.
    """
    for name in list(sys.modules):
        if name.partition(".")[0] == "app" and not f"{name}.".startswith(f"{except_for}."):
            del sys.modules[name]


def name_metrics_folder() -> None:
    """Name the folder in which workers share their metrics; a master started by SIGUSR2 has another.

    To be called before prometheus_client is imported, which reads the variable then. The folder is
    made later, so that --check-config leaves nothing behind.
    """
    if "prometheus_client" in sys.modules:
        return
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError as error:
        sys.exit(f"Error: {error.strerror}: TMPDIR can name one")
    folder = os.path.join(parent, f"kafka-state-metrics-{secrets.token_hex(8)}")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
