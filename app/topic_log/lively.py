"""Ask for metadata who answers.

Both clients choose a broker at random, one that is silent too, and then wait for its answer for as
long as a request may take.
"""

from __future__ import annotations

import random
from typing import Any

# the leader of a partition that is followed answers twice a second
LIVELY_SECONDS = 1.0


class AsksTheLively:
    """Goes before the class of the client that sends the requests."""

    _asked: Any = None

    def heard(self) -> dict[Any, float]:
        """How many seconds ago something came from each broker that there is a connection to."""
        raise NotImplementedError

    def least_loaded_node(self) -> Any:
        lively = self._lively()
        self._asked = random.choice(lively) if lively else super().least_loaded_node()  # type: ignore[misc]
        return self._asked

    def ask_another(self) -> bool:
        """Give up the broker that was asked if it is silent; False if all are."""
        lively = self._lively()
        if lively and self._asked not in lively:
            self.close(self._asked)  # type: ignore[attr-defined]
        return bool(lively)

    def _lively(self) -> list[Any]:
        return [node for node, seconds in self.heard().items() if seconds < LIVELY_SECONDS]
