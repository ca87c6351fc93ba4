from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import CHROMIUM
from tests.support.processes import Program, following
from tests.support.topics import Topic

# as root there is no sandbox; the others keep Chromium from asking its maker's hosts
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


class Complaints(list[str]):
    """What the browser has to say against a page: errors, and requests to elsewhere."""

    def watch(self, page: Page, program: Program) -> None:
        page.on("pageerror", lambda error: self.append(f"page error: {error}"))
        page.on(
            "console",
            lambda message: self.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                urlsplit(request.url).netloc == f"localhost:{program.port}"
                or self.append(f"asks {request.url}")
            ),
        )


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def visit(chromium: Browser, complaints: Complaints) -> Iterator[Callable[..., Page]]:
    """Open a page of a program, after a `script`; `options` are those of a browser's context."""
    with contextlib.ExitStack() as opened:

        def visit(
            program: Program, path: str = "/", script: str = "", port: int = 0, **options: Any
        ) -> Page:
            context = opened.enter_context(
                contextlib.closing(
                    chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
                )
            )
            page = context.new_page()
            page.add_init_script(script)
            complaints.watch(page, program)
            page.goto(f"http://localhost:{port or program.port}{path}")
            return page

        yield visit


@pytest.fixture
def serving(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Program]]:
    """Run the program on a topic, at a port if one is given."""

    def serve(topic: Topic, port: int = 0, **environ: str):
        return following(topic, tmp_path / "output", port=port, **environ)

    return serve


@pytest.fixture
def picture(pytestconfig: pytest.Config, tmp_path: Path) -> Callable[[Page, str], None]:
    """Leave a picture of a page, for people to look at."""
    folder = pytestconfig.getoption("screenshots") or tmp_path

    def picture(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png")

    return picture
