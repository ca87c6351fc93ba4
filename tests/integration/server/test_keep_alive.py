"""Clients and proxies keep a connection and use it again some seconds later."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import requests

from tests.support.processes import Program, following
from tests.support.proxies import PROXIES, proxy

CLIENTS = 60
REQUESTS = 3  # of each client
# gunicorn closes after two by its default: as they ask again, which is when it hurts
IDLE_SECONDS = 1.99, 2.01


@pytest.fixture(scope="module")
def program(make_topic, tmp_path_factory) -> Iterator[Program]:
    with following(make_topic(), tmp_path_factory.mktemp("program") / "output") as program:
        program.comes_to(0)
        yield program


def ask_now_and_then(new_client: Callable[[], contextlib.AbstractContextManager], url: str):
    """Each of many clients asks, and idles, on a connection of its own; gives what failed."""
    failed, answered = [], []
    done = threading.Event()

    def ask() -> None:
        with new_client() as client:
            for number in range(REQUESTS):
                if number:
                    done.wait(random.uniform(*IDLE_SECONDS))
                try:
                    answer = client.get(url, timeout=10)
                    (answered if answer.status_code == 200 else failed).append(answer)
                except (requests.RequestException, httpx.HTTPError) as error:
                    failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) + len(failed) == CLIENTS * REQUESTS
    return failed


# to read the certificates of all authorities, for each client, takes longer than all else
HTTPX = functools.partial(httpx.Client, verify=False)


@pytest.mark.parametrize("client", [requests.Session, HTTPX], ids=["requests", "httpx"])
def test_a_client_that_idles_between_two_requests_is_answered(program, client):
    assert ask_now_and_then(client, f"http://127.0.0.1:{program.port}/state") == []


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_that_keeps_its_connections_gives_each_client_the_answer(program, tmp_path, name):
    with proxy(name, program.port, tmp_path / name) as port:
        assert ask_now_and_then(requests.Session, f"http://127.0.0.1:{port}/state") == []
