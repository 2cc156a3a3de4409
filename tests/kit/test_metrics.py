"""The bricks of metrics: bounds, the text, and the little server that shows it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from taskrunner.domain.errors import ConfigurationError
from taskrunner.domain.histogram import Histogram
from taskrunner.kit import exposition
from taskrunner.kit.metrics import LABELLED, counters, gauges, histograms, new_registry, rendered, watched


class Given(Collector):
    def __init__(self, *metrics: Metric) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self.metrics


def samples(*metrics: Metric) -> dict[str, dict[tuple[str, ...], float]]:
    registry = new_registry(version="1")
    registry.register(Given(*metrics))
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(rendered(registry, "")[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_a_histogram_is_cumulative_and_has_count_and_sum() -> None:
    made = Histogram((1.0, 2.0))
    for value in (0.5, 1.5, 1.6, 9.0):
        made.observe(value)
    found = samples(histograms("h", "about", ("queue",), {("q",): made}))
    buckets = {frozenset(words): n for words, n in found["h_bucket"].items()}
    assert buckets == {frozenset({"q", bound}): n for bound, n in (("1.0", 1), ("2.0", 3), ("+Inf", 4))}
    assert found["h_count"]["q",] == 4
    assert found["h_sum"]["q",] == pytest.approx(12.6)


def test_beyond_the_bound_all_labels_are_one_and_nothing_is_lost() -> None:
    values = {(f"t{n}",): 1.0 for n in range(LABELLED + 25)}
    found = samples(counters("c", "about", ("task_type",), values), gauges("g", "about", ("task_type",), values))
    for name in ("c_total", "g"):
        assert len(found[name]) == LABELLED + 1
        assert found[name]["other",] == 25
        assert sum(found[name].values()) == LABELLED + 25


def test_beyond_the_bound_histograms_are_added_up() -> None:
    values = {}
    for n in range(LABELLED + 3):
        values["q", f"t{n}"] = made = Histogram()
        made.observe(2.0)
    found = samples(histograms("h", "about", ("queue", "task_type"), values))
    assert (found["h_count"]["other", "other"], found["h_sum"]["other", "other"]) == (3, 6.0)


def test_labels_may_hold_anything() -> None:
    assert samples(gauges("g", "about", ("queue",), {('a "b"\n\\c',): 1.0}))["g"] == {('a "b"\n\\c',): 1.0}


async def test_a_loop_that_is_held_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.kit.metrics.LOOK", 0.01)
    registry = new_registry()
    async with watched(registry, "main"):
        while True:
            await asyncio.sleep(0.02)
            if (registry.get_sample_value("taskrunner_event_loop_lag_seconds_count", {"loop": "main"}) or 0) > 0:
                break
        time.sleep(0.3)
        while (registry.get_sample_value("taskrunner_event_loop_lag_seconds_sum", {"loop": "main"}) or 0) < 0.2:
            await asyncio.sleep(0.01)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with exposition.exposing(new_registry(version="7"), "127.0.0.1", 0) as url:
        yield int(url.rsplit(":", 1)[1].partition("/")[0])


async def ask(port: int, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return (await reader.read()).decode()
    except ConnectionResetError:
        return ""  # it hung up before it had read all
    finally:
        writer.close()


async def test_the_exposition_answers_scrapes_and_nothing_else(port: int) -> None:
    head, _, body = (await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert "text/plain; version=" in head
    assert f"Content-Length: {len(body.encode())}" in head
    assert 'taskrunner_build_info{version="7"} 1.0' in body
    assert "application/openmetrics-text" in await ask(port, b"GET /metrics?x=1 HTTP/1.1\r\naccept: application/openmetrics-text\r\n\r\n")
    bare = await ask(port, b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert bare.endswith("\r\n\r\n")
    assert (await ask(port, b"GET / HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 404 ")
    assert (await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 405 ")


async def test_the_exposition_bounds_what_strangers_may_take(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n") == ""
    monkeypatch.setattr(exposition, "PATIENCE", 0.05)
    assert await ask(port, b"GET /metr") == ""  # never finished
    monkeypatch.setattr(exposition, "PATIENCE", 30)
    monkeypatch.setattr(exposition, "MOST", 1)
    _, first = await asyncio.open_connection("127.0.0.1", port)
    while await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n"):
        await asyncio.sleep(0.01)  # until the first one is taken on
    first.close()
    while not await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n"):
        await asyncio.sleep(0.01)


async def test_a_taken_port_is_said(port: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"TASKRUNNER_METRICS_PORT {port}"):
        async with exposition.exposing(new_registry(), "127.0.0.1", port):
            pass
