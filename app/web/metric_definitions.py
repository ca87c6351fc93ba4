"""Every metric of the service, each declared once.

The collectors are made from this list, and so are the table in docs/metrics.md and the Grafana
dashboard: after a change run `make docs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

Kind = Literal["counter", "gauge", "histogram"]
# what is told of several workers: what they counted together, the value of the worst of them, or
# what each of them says
OverWorkers = Literal["sum", "highest", "lowest", "each"]
Section = Literal["State and following", "HTTP", "Models"]

# prometheus_client's name of the worst of the workers that live
LIVE_MODES = {"highest": "livemax", "lowest": "livemin"}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What is told of a metric to who reads it.

    Attributes:
        name: as it is exposed. Of a histogram, what `_bucket`, `_sum` and `_count` are added to.
        meaning: one or two sentences, which Prometheus shows as its help.
        unit: of its value, before a rate is taken: a noun in the plural.
        labels: their names, the one that tells most first.
    """

    name: str
    meaning: str
    unit: str
    labels: tuple[str, ...] = ()

    kind: ClassVar[Kind]

    @property
    def section(self) -> Section:
        if self.name.startswith("http_"):
            return "HTTP"
        is_of_models = self.name.startswith("kafka_state_model_")
        return "Models" if is_of_models else "State and following"

    @property
    def family_name(self) -> str:
        """What prometheus_client calls it: of a counter the name without `_total`."""
        return self.name.removesuffix("_total")

    def family(self) -> Metric:
        """Give it without samples, for what is computed when it is collected."""
        return Metric(self.family_name, self.meaning, self.kind)


class CounterDefinition(Definition):
    kind = "counter"
    over_workers: ClassVar[OverWorkers] = "sum"

    def collector(self, registry: CollectorRegistry) -> Counter:
        return Counter(self.family_name, self.meaning, self.labels, registry=registry)


@dataclass(frozen=True, kw_only=True)
class HistogramDefinition(Definition):
    """
    Attributes:
        buckets: their upper bounds, ascending, in its unit; the last one has none.
    """

    buckets: tuple[float, ...]

    kind = "histogram"
    over_workers: ClassVar[OverWorkers] = "sum"

    def collector(self, registry: CollectorRegistry) -> Histogram:
        return Histogram(
            self.name, self.meaning, self.labels, buckets=self.buckets, registry=registry
        )


@dataclass(frozen=True, kw_only=True)
class GaugeDefinition(Definition):
    over_workers: Literal["highest", "lowest"]

    kind = "gauge"

    def collector(self, registry: CollectorRegistry) -> Gauge:
        mode = LIVE_MODES[self.over_workers]
        return Gauge(
            self.name,
            self.meaning,
            self.labels,
            multiprocess_mode=mode,  # type: ignore[arg-type]  # one of a long Literal
            registry=registry,
        )


class InfoDefinition(Definition):
    """A gauge that is always 1, and tells by its labels."""

    kind = "gauge"
    over_workers: ClassVar[OverWorkers] = "each"


# --- State and following: one topic, as each worker follows it

CONNECTED = GaugeDefinition(
    name="kafka_state_connected",
    meaning="1 while the topic is followed, 0 while it is not.",
    unit="truth",
    over_workers="lowest",
)
STALE = GaugeDefinition(
    name="kafka_state_stale_seconds",
    meaning="Time since the end of the log was last confirmed for every partition. "
    "Half a second is normal.",
    unit="seconds",
    over_workers="highest",
)
CONFIRMED_TIMESTAMP = GaugeDefinition(
    name="kafka_state_confirmed_timestamp_seconds",
    meaning="When the end of the log was last confirmed for every partition.",
    unit="Unix time",
    over_workers="lowest",
)
AGE = GaugeDefinition(
    name="kafka_state_age_seconds",
    meaning="Age of the state: time since the timestamp of its message.",
    unit="seconds",
    over_workers="highest",
)
LAST_MESSAGE_TIMESTAMP = GaugeDefinition(
    name="kafka_state_last_message_timestamp_seconds",
    meaning="Timestamp of the message that is served as the state.",
    unit="Unix time",
    over_workers="lowest",
)
LAG = GaugeDefinition(
    name="kafka_state_lag",
    meaning="Messages between the position and the end of a partition.",
    unit="messages",
    labels=("partition",),
    over_workers="highest",
)
UPDATES = CounterDefinition(
    name="kafka_state_updates_total",
    meaning="States that were served, including the first one.",
    unit="states",
)
UPDATE_DELAY = HistogramDefinition(
    name="kafka_state_update_delay_seconds",
    meaning="Time from a message's timestamp until its state was served. "
    "Messages from before the service began to follow are not counted.",
    unit="seconds",
    # a lone message takes a few milliseconds; an outage, minutes
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
INVALID_MESSAGES = CounterDefinition(
    name="kafka_state_invalid_messages_total",
    meaning="Messages that were refused because they are not valid, by reason. "
    "Messages from before the service began to follow are not counted.",
    unit="messages",
    labels=("reason",),
)
FAILED_LOADS = CounterDefinition(
    name="kafka_state_failed_loads_total",
    meaning="How often the loader refused a message, or failed to load it for now, by reason. "
    "Each try counts.",
    unit="loads",
    labels=("reason",),
)
SKIPPED_MESSAGES = CounterDefinition(
    name="kafka_state_skipped_messages_total",
    meaning="Offsets that were skipped unread, because there were newer messages. "
    "The offsets of transaction markers and aborted messages are included.",
    unit="messages",
)
PARTITION_ERRORS = CounterDefinition(
    name="kafka_state_partition_errors_total",
    meaning="How often a partition could not be read, by Kafka's name for the error.",
    unit="errors",
    labels=("error",),
)
RECONNECTS = CounterDefinition(
    name="kafka_state_reconnects_total",
    meaning="How often the service had to start following again.",
    unit="reconnects",
)
FETCHES = CounterDefinition(
    name="kafka_state_fetches_total",
    meaning="Fetch requests that were sent to brokers.",
    unit="requests",
)

# --- HTTP: clients make up paths and methods, so the labels have only those that are known

HTTP_REQUESTS = CounterDefinition(
    name="http_requests_total",
    meaning="Requests that were answered.",
    unit="requests",
    labels=("route", "method", "status"),
)
HTTP_DURATION = HistogramDefinition(
    name="http_request_duration_seconds",
    meaning="Time from a request until its answer could be sent, including any waiting.",
    unit="seconds",
    labels=("route", "method", "status"),
    # those of prometheus_client
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)

# --- Models: exposed with STATE_LOADER=onnx only

MODEL_INFO = InfoDefinition(
    name="kafka_state_model_info",
    meaning="1 for the model that is served.",
    unit="models",
    labels=("name", "version"),
)
MODEL_KEPT_INFO = InfoDefinition(
    name="kafka_state_model_kept_info",
    meaning="1 for each earlier model that is still loaded (MODEL_KEEP_VERSIONS).",
    unit="models",
    labels=("name", "version"),
)
MODEL_SWAPS = CounterDefinition(
    name="kafka_state_model_swaps_total",
    meaning="How often a model replaced another model.",
    unit="swaps",
)
MODEL_INFERENCE = HistogramDefinition(
    name="kafka_state_model_inference_seconds",
    meaning="Time that the model itself took to compute a request.",
    unit="seconds",
    # a small model takes some 20 microseconds, a large one seconds
    buckets=(
        0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
        1, 2.5, 5, 10,
    ),
)  # fmt: skip
MODEL_BATCH_SIZE = HistogramDefinition(
    name="kafka_state_model_batch_size",
    meaning="First dimension of a request's first input, if the model allows any size for it.",
    unit="rows",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)

AnyDefinition = CounterDefinition | HistogramDefinition | GaugeDefinition | InfoDefinition
# all of the above, in their order
METRICS: tuple[AnyDefinition, ...] = tuple(
    value for value in vars().values() if isinstance(value, AnyDefinition)
)
