"""What is asked of a partition's leader, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from app.topic_log.batches import Batches


@dataclass(frozen=True)
class AskEnds:
    """Where does the partition begin and end?"""


@dataclass(frozen=True)
class AskRecords:
    """Which records are there from `offset` on?

    Attributes:
        max_bytes: what the answer holds of this partition, one whole batch in any case (KIP-74).
        may_wait: whether the broker may wait for a record, for there may be none yet.
        first: whether it comes first in the request. The first partition that has records is
            answered with some, whatever the others take of the answer's size; so an empty answer
            says for sure that there are none.
    """

    offset: int
    max_bytes: int
    may_wait: bool = False
    first: bool = False


Ask = AskEnds | AskRecords


@dataclass(frozen=True)
class Ends:
    """The partition's offsets go from `start` to before `end`."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Fetched:
    """What came of a question for records.

    Attributes:
        asked: the question.
        end: where what is handed out ends: the last stable offset (KIP-98), or the high watermark
            where uncommitted records are read too.
        high_watermark: where the log ends, open transactions included.
        log_start: the first offset that is still there; None where the broker does not tell.
        batches: what there is from the offset on, or a part of it, not decoded yet.
        is_conclusive: whether nothing means that there is nothing up to the end.
    """

    partition: int
    asked: AskRecords
    end: int
    high_watermark: int
    log_start: int | None
    batches: Batches
    is_conclusive: bool


@dataclass(frozen=True)
class PartitionError:
    """The partition cannot be read now.

    Attributes:
        name: Kafka's name of the error, or one of ours in the same style, to count by.
        detail: what it means, for an operator.
    """

    partition: int
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


Answer = Ends | Fetched | PartitionError
