"""The numbers as one table, as a page and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from bench.flood import MESSAGE
from bench.load import STATE, quantile
from bench.services import (
    BARE_FLASK,
    BARE_WSGI,
    CLIENTS,
    FASTAPI,
    FASTAPI_ONNX,
    FASTAPI_ONNX_THREADS,
    FLASK_LOOP,
    OURS,
    OURS_3,
)
from bench.suites import COMPARED_RATE, FEW, MANY, PARTITIONS, PEERS, RATES
from bench.swaps import ASKING, NEW_SMALL, QUICK_MODELS, QUICK_SECONDS
from bench.workers import DESCRIPTION

Row = tuple[str, ...]
HEAD: Row = ("what", "bar", "kafka-python-ng", "kafka-python 3", "beside it")
NAMES = [service.name for service in CLIENTS]
MEGABYTE = 1e6


def rows(results: dict[str, Any]) -> Iterator[Row]:
    """What of the issue's lines was measured."""
    lines = {
        "flood": _flood_rows,
        "peers": _peer_rows,
        "lone": _lone_rows,
        "start": _start_rows,
        "invalid": _invalid_rows,
        "idle": _idle_rows,
        "requests": _request_rows,
        "models": _model_rows,
        "swaps": _swap_rows,
        "workers": _worker_rows,
        "memory": _memory_rows,
    }
    for suite, give in lines.items():
        if suite in results:
            yield from give(results[suite]["numbers"])


def _flood_rows(numbers: Any) -> Iterator[Row]:
    for rate in map(str, RATES):
        of = [_Pairs(numbers[name][rate]) for name in NAMES]
        title = f"flood of {_rate(of[0])}"
        yield (
            f"{title}: requests/s on its topic / on another",
            ">= 0.95",
            *(_quartiles(p.ratios("rate")) for p in of),
            "; ".join(f"{p.on('rate'):.0f} / {p.off('rate'):.0f}" for p in of),
        )
        yield (
            f"{title}: 99th percentile, the same",
            "<= 1.3",
            *(f"{p.on('p99') / p.off('p99'):.2f}" for p in of),
            "; ".join(f"{_ms(p.on('p99'))} / {_ms(p.off('p99'))}" for p in of),
        )
        yield (
            f"{title}: staleness, 99th percentile",
            "<= 100 ms",
            *(_ms(quantile(p.staleness, 99)) for p in of),
            "median " + "; ".join(_ms(statistics.median(p.staleness)) for p in of),
        )
        yield (
            f"{title}: the last message after its end",
            "<= 100 ms",
            *(_at_most(p.ends) for p in of),
            "the latest of all repetitions",
        )
        yield (
            f"{title}: CPU of the consumer thread",
            "<= 10 % of a core",
            *(_percent(p.on("cpu")) for p in of),
            "while requests are answered",
        )
        yield (
            f"{title}: fetched from the broker",
            "by the window",
            *(f"{p.on('bytes') / MEGABYTE:.2f} MB/s" if p.bytes else "no `ss`" for p in of),
            f"of {of[0].on('sent') * len(MESSAGE % 10**6) / MEGABYTE:.1f} MB/s",
        )


def _peer_rows(numbers: Any) -> Iterator[Row]:
    for rate in map(str, RATES):
        by_turns = {name: [at["on"] for at in of[rate]] for name, of in numbers.items()}
        sent = _rate(_Pairs(numbers[OURS.name][rate]))
        yield (
            f"flood of {sent} on the topic: requests/s / {FASTAPI.name}",
            "> 1" if rate == str(COMPARED_RATE) else "",
            *(_quartiles(_ratios(by_turns, name, FASTAPI.name, "rate")) for name in NAMES),
            "; ".join(f"{_median(by_turns[name], 'rate'):.0f}" for name in NAMES),
        )
    for service in PEERS:
        for rate in map(str, RATES):
            of = _Pairs(numbers[service.name][rate])
            yield (
                f"{service.name}, flood of {_rate(of)}",
                "",
                "",
                "",
                ", ".join(
                    (
                        f"{of.on('rate'):.0f} requests/s",
                        f"99th percentile {_ms(of.on('p99'))}",
                        f"staleness {_ms(quantile(of.staleness, 99))} at the 99th",
                        f"last message {_at_most(of.ends)}",
                    )
                ),
            )


def _lone_rows(numbers: Any) -> Iterator[Row]:
    limit = numbers["librdkafka"]
    median, p99 = statistics.median(limit), quantile(limit, 99)
    yield (
        "one of thirty messages a second until seen on the stream, median",
        f"<= {_ms(1.3 * median + 0.001)}",
        *(_ms(statistics.median(numbers[name])) for name in NAMES),
        f"librdkafka {_ms(median)}; of {len(limit)} messages",
    )
    yield (
        "the same, 99th percentile",
        f"<= {_ms(1.5 * p99 + 0.002)}",
        *(_ms(quantile(numbers[name], 99)) for name in NAMES),
        f"librdkafka {_ms(p99)}",
    )


def _start_rows(numbers: Any) -> Iterator[Row]:
    few, many = (
        {name: statistics.median(of[str(count)]) for name, of in numbers.items()}
        for count in (FEW, MANY)
    )
    yield (
        f"start to first true state, {MANY:,} / {FEW} messages",
        "<= 1.1",
        *(f"{many[name] / few[name]:.2f}" for name in NAMES),
        "; ".join(f"{many[name]:.2f} s / {few[name]:.2f} s" for name in NAMES),
    )
    yield (
        f"the same on {MANY:,}, against {FASTAPI.name}",
        "< 0.33",
        *(f"{many[name] / many[FASTAPI.name]:.2f}" for name in NAMES),
        f"{many[FASTAPI.name]:.2f} s; on {FEW} {few[FASTAPI.name]:.2f} s",
    )


def _invalid_rows(numbers: Any) -> Iterator[Row]:
    for kind in numbers[NAMES[0]]:
        yield (
            f"the same, the last 100,000 invalid ({kind})",
            "<= 3 s",
            *(f"{_quartiles(numbers[name][kind])} s" for name in NAMES),
            "",
        )


def _idle_rows(numbers: Any) -> Iterator[Row]:
    for partitions, bar in zip(PARTITIONS, ("0.5 %", "2 %", "5 %"), strict=True):
        shares = [statistics.median(numbers[name][str(partitions)]) for name in NAMES]
        yield (
            f"CPU of the consumer thread when idle, {partitions} partition(s)",
            f"<= {bar} of a core",
            *(_percent(share, digits=2) for share in shares),
            "",
        )


def _request_rows(numbers: Any) -> Iterator[Row]:
    rates = {name: [at["rate"] for at in of] for name, of in numbers.items()}
    rate = {name: statistics.median(of) for name, of in rates.items()}
    bare = rates[BARE_WSGI.name]
    yield (
        f"requests/s without a flood / {BARE_WSGI.name}",
        ">= 0.7",
        *(_quartiles([a / b for a, b in zip(rates[name], bare, strict=True)]) for name in NAMES),
        ", ".join(f"{s.name} {rate[s.name]:.0f}" for s in (BARE_WSGI, BARE_FLASK)),
    )
    yield (
        "requests/s without a flood",
        "",
        *(f"{rate[name]:.0f}" for name in NAMES),
        ", ".join(f"{s.name} {rate[s.name]:.0f}" for s in PEERS),
    )
    peer = FASTAPI.name
    yield (
        f"processor time of a GET /state / {peer}",
        "<= 1.5",
        *(_quartiles(_ratios(numbers, name, peer, "cpu")) for name in NAMES),
        ", ".join(f"{name} {_us(_median(of, 'cpu'))}" for name, of in numbers.items()),
    )
    yield (
        f"99th percentile of the same / {peer}",
        "<= 3",
        *(_quartiles(_ratios(numbers, name, peer, "p99")) for name in NAMES),
        ", ".join(f"{name} {_ms(_median(of, 'p99'))}" for name, of in numbers.items()),
    )


def _ratios(numbers: Any, name: str, other: str, what: str) -> list[float]:
    """Slice by slice, which were measured by turns."""
    return [a[what] / b[what] for a, b in zip(numbers[name], numbers[other], strict=True)]


def _model_rows(numbers: Any) -> Iterator[Row]:
    """Of the one client: the other does the same here."""
    (small,) = numbers["small"].values()
    yield (
        f"processor time of an inference of a small model / {FASTAPI_ONNX.name}",
        "<= 1.5",
        _quartiles(_ratios(small, OURS.name, FASTAPI_ONNX.name, "cpu")),
        "",
        ", ".join(f"{name} {_us(_median(of, 'cpu'))}" for name, of in small.items()),
    )
    yield (
        "inferences/s of a small model",
        "",
        f"{_median(small[OURS.name], 'rate'):.0f}",
        "",
        f"{_asked(small)}; onnxruntime alone {numbers['alone']:.0f}",
    )
    for size in ("medium", "large"):
        for clients, asked in numbers[size].items():
            yield (
                f"inferences/s of a {size} model, {clients} clients / {FASTAPI_ONNX_THREADS.name}",
                ">= 0.95",
                _quartiles(_ratios(asked, OURS.name, FASTAPI_ONNX_THREADS.name, "rate")),
                "",
                _asked(asked),
            )


def _asked(of_services: Any) -> str:
    return "; ".join(
        f"{name} {_median(of, 'rate'):.0f}, 99th percentile {_ms(_median(of, 'p99'))}"
        for name, of in of_services.items()
    )


def _swap_rows(numbers: Any) -> Iterator[Row]:
    """Of the one client too."""
    for clients, pairs in numbers["pairs"].items():
        swaps = _Pairs(pairs)
        yield (
            f"99th percentile of inferences, {clients} client(s), while 50 MB are swapped / not",
            "<= 2",
            _quartiles(swaps.ratios("p99")),
            "",
            "; ".join(
                (
                    f"{_ms(swaps.on('p99'))} / {_ms(swaps.off('p99'))}",
                    f"{swaps.on('rate'):.0f} / {swaps.off('rate'):.0f} inferences/s",
                )
            ),
        )
    for kind, seconds in numbers["served"].items():
        yield (
            f"from a message until its model is served, {kind}",
            "<= 50 ms" if kind == NEW_SMALL else "",
            _ms(statistics.median(seconds)),
            "",
            f"{_ms(max(seconds))} at most, of {len(seconds)}",
        )
    quick = numbers["quick"]
    wrong, failed, answered = (
        sum(at[what] for at in quick) for what in ("wrong", "failed", "answered")
    )
    yield (
        f"served of {QUICK_MODELS} models, {_ms(QUICK_SECONDS)} apart, while {ASKING} clients ask",
        ">= 100",
        ", ".join(str(at["served"]) for at in quick),
        "",
        "",
    )
    yield (
        "answers meanwhile that were wrong, and requests that failed",
        "0, 0",
        f"{wrong}, {failed}",
        "",
        f"{answered:,} answers",
    )


def _worker_rows(numbers: Any) -> Iterator[Row]:
    """Of the one client too."""
    alone, both = numbers["loops"]
    of_state, of_description = (
        [numbers["asked"][path][count] for count in ("1", "2")]
        for path in (STATE.path, DESCRIPTION.path)
    )
    pairs = list(zip(*of_state, strict=True))
    of_one, of_two = (_us(_median(of, "busiest")) for of in of_state)
    yield (
        "GET /state, by processor time of the busiest: two workers / one",
        ">= 1.7",
        _quartiles([one["busiest"] / two["busiest"] for one, two in pairs]),
        "",
        f"{of_one} / {of_two} of the busiest; a loop of Python in two / one {both / alone:.2f}",
    )
    yield (
        f"requests/s of GET {DESCRIPTION.path}: two workers / one",
        ">= 1.7",
        _quartiles([two["rate"] / one["rate"] for one, two in zip(*of_description, strict=True)]),
        "",
        " / ".join(f"{_median(of, 'rate'):.0f}" for of in reversed(of_description)),
    )
    most = [2 * one["cpu"] / (two["cpu"] + two["load"]) for one, two in pairs]
    yield (
        "requests/s of GET /state, the load on the same cores: two workers / one",
        "",
        _quartiles([two["rate"] / one["rate"] for one, two in pairs]),
        "",
        " / ".join(f"{_median(of, 'rate'):.0f}" for of in reversed(of_state))
        + f"; the load takes {_us(_median(of_state[1], 'load'))} for each, which leaves "
        f"{statistics.median(most):.2f} at most",
    )
    scrapes = numbers["scrapes"]
    yield (
        f"a scrape of /metrics after {numbers['ended']} workers have ended, median",
        "<= 10 ms",
        _ms(statistics.median(scrapes["after"])),
        "",
        f"{_ms(statistics.median(scrapes['before']))} before any has",
    )


def _memory_rows(numbers: Any) -> Iterator[Row]:
    told = []
    for name in NAMES:
        of = [size / MEGABYTE for size in numbers[name]]
        minute = len(of) // 10
        told.append(
            f"{statistics.median(of[minute : 2 * minute]):.1f} MB to "
            f"{statistics.median(of[-minute:]):.1f} MB"
        )
    yield (
        "memory from the second to the tenth minute of flood",
        "flat",
        *told,
        f"{numbers['messages']:,} messages",
    )


def _median(of: Sequence[dict[str, float]], what: str) -> float:
    return statistics.median(at[what] for at in of)


class _Pairs:
    """Slices with what is to be measured, each beside one without: a flood on the topic and on
    another, swaps and none."""

    def __init__(self, pairs: Sequence[dict[str, Any]]) -> None:
        self._pairs = pairs

    def on(self, what: str) -> float:
        return self._median("on", what)

    def off(self, what: str) -> float:
        return self._median("off", what)

    def _median(self, where: str, what: str) -> float:
        values: list[float] = [pair[where][what] for pair in self._pairs]
        return statistics.median(values)

    def ratios(self, what: str) -> list[float]:
        return [pair["on"][what] / pair["off"][what] for pair in self._pairs]

    @property
    def staleness(self) -> list[float]:
        return [sample for pair in self._pairs for sample in pair["on"]["staleness"]]

    @property
    def ends(self) -> list[float | None]:
        return [pair["on"]["end"] for pair in self._pairs]

    @property
    def bytes(self) -> bool:
        return all(pair["on"]["bytes"] is not None for pair in self._pairs)


def _rate(pairs: _Pairs) -> str:
    return f"{round(pairs.on('sent'), -3):,.0f}/s"


def _at_most(ends: Sequence[float | None]) -> str:
    known = [end for end in ends if end is not None]
    return _ms(max(known)) if len(known) == len(ends) else "not in time"


def _quartiles(values: Sequence[float]) -> str:
    median, low, high = (quantile(values, percent) for percent in (50, 25, 75))
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us"


def _percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f} %"


def table(results: dict[str, Any]) -> str:
    """For a terminal."""
    lines = [HEAD, *rows(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def page(results: dict[str, Any]) -> str:
    """As Markdown."""
    cells = [HEAD, tuple("---" for _ in HEAD), *rows(results)]
    measured = "\n".join(
        f"- {suite}: {of['measured']}, {of['with']}" for suite, of in results.items()
    )
    return (
        "# What `make bench` measured\n\n"
        "Written by it; [README.md](README.md) says what the lines mean, and what is short.\n"
        "Medians, in parentheses quartiles. Two values "
        "beside each other are those of the two clients.\n\n"
        + "\n".join("| " + " | ".join(line) + " |" for line in cells)
        + f"\n\nMeasured:\n\n{measured}\n"
    )


COLORS = {
    OURS.name: "#1f77b4",
    OURS_3.name: "#17becf",
    FASTAPI.name: "#d62728",
    FLASK_LOOP.name: "#ff7f0e",
}


def plot(results: dict[str, Any], file: Path) -> None:
    """Requests a second and staleness over the messages a second, as SVG."""
    if not {"requests", "peers"} <= results.keys():
        return
    pyplot.rcParams.update({"svg.hashsalt": "bench", "font.size": 9})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    quiet = results["requests"]["numbers"]
    floods = results["peers"]["numbers"]
    for name, color in COLORS.items():
        of = [_Pairs(floods[name][str(rate)]) for rate in RATES]
        sent = [pairs.on("sent") for pairs in of]
        alone = statistics.median(at["rate"] for at in quiet[name])
        left.plot([1000, *sent], [alone, *(p.on("rate") for p in of)], "o-", color=color)
        stale = [max(quantile(p.staleness, 99) * 1000, 1) for p in of]
        right.plot(sent, stale, "o-", color=color, label=name)
    left.set(xscale="log", yscale="log", ylabel="requests per second")
    left.set_xticks([1000, 10_000, 100_000], ["none", "10 000", "100 000"])
    right.set(xscale="log", yscale="log", ylabel="staleness, 99th percentile (ms)")
    right.set_xticks([10_000, 100_000], ["10 000", "100 000"])
    right.axhline(100, color="grey", linewidth=0.8, linestyle="--")
    for axes in (left, right):
        axes.set_xlabel("messages per second on the topic")
        axes.grid(alpha=0.3)
        axes.minorticks_off()
    right.legend()
    figure.savefig(file, metadata={"Date": None})
