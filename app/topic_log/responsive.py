"""Metadata is asked of a broker that answers.

Both clients choose one at random, be it silent, and then wait for its answer for as long as a
request may take.
"""

from __future__ import annotations

import random
from typing import Any

# the leader of a partition that is followed answers twice a second
RESPONSIVE_SECONDS = 1.0


class PrefersResponsiveBrokers:
    """A mixin, which goes before the class of the client that sends the requests."""

    _asked: Any = None

    def heard(self) -> dict[Any, float]:
        """By connected broker, how many seconds ago something came from it."""
        raise NotImplementedError

    def least_loaded_node(self) -> Any:
        responsive = self._responsive()
        self._asked = random.choice(responsive) if responsive else super().least_loaded_node()  # type: ignore[misc]
        return self._asked

    def ask_another(self) -> bool:
        """Give up the broker that was asked if it is silent; False if all are."""
        responsive = self._responsive()
        if responsive and self._asked not in responsive:
            self.close(self._asked)  # type: ignore[attr-defined]
        return bool(responsive)

    def _responsive(self) -> list[Any]:
        return [node for node, seconds in self.heard().items() if seconds < RESPONSIVE_SECONDS]
