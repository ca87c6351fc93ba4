"""Proxies that compress what they may leave versions and streams as they are."""

from __future__ import annotations

import time

import pytest
import requests
import sseclient

from tests.support.proxies import PROXIES, proxy


@pytest.fixture(params=PROXIES)
def url(request, topic, serving, tmp_path):
    topic.send_state("x" * 2000)
    with serving() as program:
        program.comes_to("x" * 2000)
        with proxy(request.param, program.port, tmp_path / request.param) as port:
            yield f"http://127.0.0.1:{port}"


def test_compress_what_they_may(url):
    assert requests.get(f"{url}/openapi.json", timeout=10).headers["Content-Encoding"] == "gzip"


def test_a_version_is_known_again(request, url):
    answer = requests.get(f"{url}/state", timeout=10)
    # nginx and Apache do not heed no-transform, of which others make what matches nothing
    if "haproxy" in request.node.name:
        assert "Content-Encoding" not in answer.headers
    known = {"If-None-Match": answer.headers["ETag"], "Prefer": "wait=1"}
    began = time.monotonic()
    assert requests.get(f"{url}/state", headers=known, timeout=10).status_code == 304
    # and waited for, where nothing changes
    assert time.monotonic() > began + 1


def test_events_are_not_held_back(url, topic):
    with requests.get(f"{url}/state/stream?events=state", stream=True, timeout=10) as answer:
        events = sseclient.SSEClient(answer).events()
        assert "xxx" in next(events).data
        topic.send_state("next")
        assert next(events).data == '{"state":"next"}'
