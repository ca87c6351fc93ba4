"""What a person sees who opens the service in a browser."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time

import psutil
import pytest
from playwright.sync_api import expect

from dev import apache_kafka
from dev.frozen import freeze
from tests.support.network import network
from tests.support.processes import following, free_port
from tests.support.proxies import proxy
from tests.support.topics import new_topic
from tests.support.waiting import eventually

LIVE = "Live"
# eight seconds of silence, one to leave the connections that the browser has kept, and the pauses
NOTICED_MS = 40_000
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def topic(make_topic):
    return make_topic()


@pytest.fixture(scope="module")
def program(topic, tmp_path_factory):
    """One for all that see no more of what the others sent than that there was something."""
    with following(topic, tmp_path_factory.mktemp("program") / "output") as program:
        eventually(lambda: program.get("/healthz"))
        yield program


def state_of(page):
    return page.locator("#state")


def connection_of(page):
    return page.locator("#connection")


def test_shows_the_state_and_where_it_came_from_and_complains_of_nothing(
    make_topic, serving, visit, complaints, picture
):
    topic = make_topic()
    topic.send_state(*range(60, 78))
    with serving(topic) as program:
        program.comes_to(77)
        page = visit(program, viewport={"width": 1920, "height": 1080})
        expect(state_of(page)).to_have_text("77")
        expect(connection_of(page)).to_have_text(LIVE)
        expect(page.locator("#topic")).to_have_text(topic.name)
        expect(page.locator("#origin")).to_contain_text("partition 0, offset 17")
        expect(page.locator("#origin")).to_contain_text(re.compile("just now|[0-9]+ s ago"))
        expect(page.locator("#partitions tr").first).to_have_text("018180")
        expect(page).to_have_title(f"77 · {topic.name}")
        picture(page, "state")
    assert complaints == []


@pytest.fixture
def served(make_topic, serving):
    """A topic of the test's own, and a program that serves its first state."""

    @contextlib.contextmanager
    def served(state):
        topic = make_topic()
        topic.send_state(state)
        with serving(topic) as program:
            program.comes_to(state)
            yield topic, program

    return served


def test_follows_without_a_reload_and_remembers_the_last_changes(served, visit, complaints):
    with served("before") as (topic, program):
        page = visit(program)
        expect(state_of(page)).to_have_text("before")
        page.evaluate("window.isStillTheSame = true")
        for number in (12, 7, 30.5, 28, 33):
            topic.send_state(number)
            expect(state_of(page)).to_have_text(str(number))
        expect(page.locator("#changes li").first).to_contain_text("33")
        expect(page.locator("#changes li").last).to_contain_text("before")
        # of those since the last that is no number
        expect(page.get_by_role("img")).to_have_attribute(
            "aria-label", "The last 5 numbers: lowest 7, highest 33, now 33"
        )
        assert page.evaluate("window.isStillTheSame")
    assert complaints == []


def test_opens_with_what_was_served_before(served, visit, complaints, picture):
    with served(0) as (topic, program):
        for number in (12345678901234567890, 7, 30.5):
            topic.send_state(number)
            program.comes_to(number)
        page = visit(program)
        expect(page.locator("#changes .value")).to_have_text(
            ["30.5", "7", "12345678901234567890", "0"]
        )
        expect(page.locator("#changes .place")).to_have_text(["0:3", "0:2", "0:1", "0:0"])
        picture(page, "history")
        # whose new worker has served one state
        program.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(program.get("/state/history").json()["states"]) == 1)
        topic.send_state("after")
        expect(page.locator("#changes .value").first).to_have_text("after")
        expect(page.locator("#changes .value")).to_have_count(5)
    assert complaints == []


def test_says_how_many_messages_were_refused_and_why_the_last_one(served, visit, picture):
    with served("kept") as (topic, program):
        page = visit(program)
        expect(page.locator("#refused")).to_be_hidden()
        topic.send(b"not JSON")
        ago = "(just now|[0-9]+ s ago)"
        expect(page.locator("#refused")).to_contain_text(
            re.compile(
                f"1 message was refused; the last, {ago}, at partition 0, offset 1: json: not JSON"
            )
        )
        topic.send(b"{}")
        expect(page.locator("#refused")).to_contain_text(
            re.compile(
                f"2 messages were refused; the last, {ago}, "
                "at partition 0, offset 2: schema: state is missing"
            )
        )
        expect(state_of(page)).to_have_text("kept")
        picture(page, "refused")


def test_folds_a_state_and_shows_what_has_changed_in_it(served, visit, complaints, picture):
    before = {"model": "a", "limits": {"low": 1, "high": 9}, "tags": ["x"], "gone": True}
    after = {"model": "a", "limits": {"low": 2, "high": 9}, "tags": ["x", "y"], "new": None}
    with served(before) as (topic, program):
        page = visit(program)
        expect(page.locator("#differences")).to_be_hidden()
        topic.send_state(after)
        expect(page.locator("#differences li")).to_have_text(
            [
                "limits.low: 1 → 2",
                'tags[1]: nothing → "y"',
                "gone: true → nothing",
                "new: nothing → null",
            ]
        )
        picture(page, "differences")
        page.get_by_role("button", name="fold").nth(1).click()
        expect(state_of(page).get_by_text('"low"')).to_be_hidden()
        expect(state_of(page).get_by_text('"tags"')).to_be_visible()
        picture(page, "folded")
        topic.send_state({**after, "gone": False})
        expect(state_of(page)).to_contain_text("gone")
        expect(state_of(page).get_by_text('"low"')).to_be_hidden()
        topic.send_state(after)
        expect(state_of(page)).not_to_contain_text("gone")
        page.get_by_role("button", name="fold").nth(1).click()
        expect(state_of(page).get_by_text('"low"')).to_be_visible()
        page.get_by_role("button", name="copy").click()
        expect(page.get_by_role("button", name="selected")).to_be_visible()
        selected = "getSelection().toString()"
        assert json.loads(eventually(lambda: page.evaluate(selected))) == after
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="copy").click()
        expect(page.get_by_role("button", name="copied")).to_be_visible()
        copied = "navigator.clipboard.readText()"
        assert json.loads(eventually(lambda: page.evaluate(copied))) == after
    assert complaints == []


def test_seven_tabs_of_a_browser_follow_over_one_connection(served, visit):
    with served("before") as (topic, program):
        first = visit(program)
        tabs = [first, *(first.context.new_page() for _ in range(6))]
        for tab in tabs[1:]:
            tab.goto(first.url)
        for tab in tabs:
            expect(connection_of(tab)).to_have_text(LIVE)
        topic.send_state("after")
        for tab in tabs:
            expect(state_of(tab)).to_have_text("after")
        worker = program.tree()[1]
        streams = [it for it in worker.net_connections() if it.status == psutil.CONN_ESTABLISHED]
        assert len([it for it in streams if it.laddr.port == program.port]) <= 6
        first.close()
        topic.send_state("later")
        for tab in tabs[1:]:
            expect(state_of(tab)).to_have_text("later")


def test_notices_a_stream_that_has_died_without_a_word(served, visit):
    with served("before") as (topic, program), network(program.port) as between:
        page = visit(program, port=between.port)
        expect(connection_of(page)).to_have_text(LIVE)
        between.go_down()  # what is connected now carries nothing any more, and the rest does
        between.come_back()
        topic.send_state("after")
        expect(state_of(page)).to_have_text("after", timeout=NOTICED_MS)


def test_notices_that_its_stream_has_died_while_the_state_stays_as_it_is(served, visit):
    with served("kept") as (topic, program), network(program.port) as between:
        page = visit(program, port=between.port)
        expect(connection_of(page)).to_have_text(LIVE)
        between.go_down()
        between.come_back()
        topic.send(b"not JSON")
        expect(page.locator("#refused")).to_contain_text(
            "1 message was refused", timeout=NOTICED_MS
        )
        expect(state_of(page)).to_have_text("kept")


@pytest.fixture
def served_from_its_own(serving, visit):
    """A Kafka to break, a topic of it, and a page that shows its first state."""

    @contextlib.contextmanager
    def served(state):
        with apache_kafka.running() as kafka:
            topic = new_topic(kafka.address)
            topic.send_state(state)
            with serving(topic) as program:
                program.comes_to(state)
                page = visit(program)
                expect(connection_of(page)).to_have_text(LIVE)
                yield kafka, topic, page

    return served


@pytest.mark.own_kafka
def test_says_for_how_long_the_state_has_been_stale(served_from_its_own, picture):
    with served_from_its_own("before") as (kafka, _, page):
        kafka.freeze()
        expect(connection_of(page)).to_have_text(re.compile("Stale|Kafka is away"))
        expect(page.locator("#reason")).to_contain_text(re.compile("confirmed [0-9]+ s ago"))
        expect(state_of(page)).to_have_text("before")
        picture(page, "stale")
        expect(connection_of(page)).to_have_text("Kafka is away")
        expect(page.locator("#reason")).to_contain_text(re.compile("confirmed [0-9]+ s ago"))
        kafka.thaw()
        expect(connection_of(page)).to_have_text(LIVE)


def test_asks_for_the_token_once_and_keeps_it_for_the_tab(topic, serving, visit, picture):
    token = "a-secret-of-many-letters"
    topic.send_state(77)
    with serving(topic, API_TOKEN=token) as program:
        eventually(lambda: getattr(program.get("/readyz"), "ok", False))
        page = visit(program)
        expect(connection_of(page)).to_have_text("A token is needed")
        picture(page, "token")
        for given, shown in (
            ("pâsted-with-signs-that-none-has…", "A token is needed"),
            ("wrong-but-long-enough", "This token is not accepted"),
            (token, LIVE),
        ):
            page.get_by_label("This service wants a token").fill(given)
            page.get_by_role("button", name="follow").click()
            expect(connection_of(page)).to_have_text(shown)
        expect(state_of(page)).to_have_text("77")
        assert token not in page.url
        page.reload()
        expect(state_of(page)).to_have_text("77")
        page.get_by_role("link", name="docs").click()
        expect(page.get_by_text("/state/stream", exact=True)).to_be_visible()
        page.go_back()
        page.get_by_role("link", name="status").click()
        expect(page.get_by_text("group_id")).to_be_visible()
        expect(connection_of(visit(program))).to_have_text("A token is needed")
        assert token not in program.output


def test_a_number_of_five_digits_is_one_line_on_a_phone(served, visit, picture):
    with served(12345) as (_, program):
        page = visit(program, viewport={"width": 320, "height": 640}, is_mobile=True)
        expect(state_of(page)).to_have_text("12345")
        picture(page, "phone-five-digits")
        lines = """() => {
            const range = document.createRange();
            range.selectNodeContents(document.getElementById("state"));
            return new Set([...range.getClientRects()].map(({ top }) => top)).size;
        }"""
        assert page.evaluate(lines) == 1


def test_draws_the_last_numbers(served, visit, picture):
    with served(12) as (topic, program):
        page = visit(program, viewport={"width": 1920, "height": 1080}, color_scheme="dark")
        for number in (7, 30.5, 28, 41, 33, 35, 36, 52, 48.25):
            expect(connection_of(page)).to_have_text(LIVE)
            topic.send_state(number)
            expect(state_of(page)).to_have_text(str(number))
        chart = page.get_by_role("img")
        expect(chart).to_have_attribute(
            "aria-label", "The last 10 numbers: lowest 7, highest 52, now 48.25"
        )
        points = page.locator("#chart polyline").get_attribute("points").split()
        assert len(points) == 10
        assert points[0].startswith("0,")
        assert points[-1].startswith("600,")
        picture(page, "dark")
        # docs/page.png, which the README shows
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 960, "height": 560})
        page.get_by_text(topic.name).evaluate("heading => heading.textContent = 'test-topic'")
        picture(page, "page")


def test_draws_the_largest_numbers_there_are(served, visit, complaints):
    with served(0) as (topic, program):
        page = visit(program)
        for number, shown in ((1.7e308, "1.7e+308"), (-1.7e308, "-1.7e+308")):
            expect(connection_of(page)).to_have_text(LIVE)
            topic.send_state(number)
            expect(state_of(page)).to_have_text(shown)
        expect(page.locator("#chart polyline")).to_have_attribute("points", "0,60 300,8 600,112")
    assert complaints == []


MARKUP = '<img src=x onerror="window.hacked=1"></pre></script><script>window.hacked=1</script>'


@pytest.mark.parametrize("state", [MARKUP, {MARKUP: [MARKUP]}])
def test_shows_markup_as_text(topic, program, visit, complaints, state):
    topic.send_state(state)
    program.comes_to(state)
    page = visit(program)
    expect(state_of(page)).to_contain_text("<img src=x onerror=")
    expect(page.locator("#changes li").first).to_contain_text("<img src=x")
    expect(connection_of(page)).to_have_text(LIVE)
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    assert complaints == []


def test_shows_every_digit_and_character_of_what_is_served(topic, program, visit, picture):
    state = {"model": "größer", "id": 12345678901234567890, "tags": [], "of": [{"a": None}, 1.50]}
    topic.send_state(state)
    program.comes_to(state)
    page = visit(program)
    expect(state_of(page)).to_have_text(
        '{\n  "model": "größer",\n  "id": 12345678901234567890,\n  "tags": [],\n'
        '  "of": [\n    {\n      "a": null\n    },\n    1.5\n  ]\n}',
        use_inner_text=True,
    )
    picture(page, "object")


def test_shows_any_json_value(topic, program, visit, complaints):
    page = visit(program)
    for state, shown in ((None, "null"), ("", '""'), (False, "false"), ([], "[]"), (" a ", "a")):
        expect(connection_of(page)).to_have_text(LIVE)
        topic.send_state(state)
        expect(state_of(page)).to_have_text(shown)
    assert complaints == []


def test_shows_the_beginning_of_a_state_that_is_too_long_to_read(topic, program, visit):
    topic.send_state("x" * 300_000)
    program.comes_to("x" * 300_000)
    page = visit(program)
    expect(state_of(page)).to_contain_text("(280000 characters more)")
    topic.send_state("short")
    expect(page.locator("#changes .value").nth(1)).to_have_text(re.compile("x{60}…"))
    # and of the history, which has no more than its beginning
    page = visit(program)
    expect(page.locator("#changes .value").nth(1)).to_have_text(re.compile("x{60}…"))


@pytest.mark.apache_kafka
def test_lists_the_partitions_that_are_behind_and_sums_up_the_others(make_topic, serving, visit):
    topic = make_topic(partitions=30)
    topic.send_state(77, partition=29)
    with serving(topic) as program:
        program.comes_to(77)
        page = visit(program)
        expect(page.locator("#partitions tr")).to_have_count(7)
        expect(page.locator("#partitions tr").last).to_have_text("24 more0")


def test_tells_a_text_from_the_number_that_it_looks_like(topic, program, visit):
    for state, is_text in ((77, False), ("77", True)):
        topic.send_state(state)
        program.comes_to(state)
        page = visit(program)
        expect(state_of(page)).to_have_text("77")
        expect(page.locator("#origin")).to_have_text(re.compile("^text · |^p"))
        assert page.locator("#origin").inner_text().startswith("text") == is_text


def test_says_that_there_may_be_a_newer_state_where_one_partition_of_several_cannot_be_read(
    topic, program, visit
):
    topic.send_state(77)
    program.comes_to(77)
    page = visit(program, script="delete window.SharedWorker")  # so that this page can be told
    expect(connection_of(page)).to_have_text(LIVE)
    page.evaluate(
        """() => {
            const error = "LEADER_NOT_AVAILABLE: it has no leader";
            const partitions = [{ partition: 1, position: 3, end: 3, lag: 0, error }];
            const trouble = { partitions, partition_count: 2, partitions_in_trouble: 1 };
            take({ kind: "status", status: { ...status, ...trouble } });
        }"""
    )
    expect(connection_of(page)).to_have_text("Not all is read")
    expect(page.locator("#reason")).to_have_text(
        "There may be a newer state; partition 1: LEADER_NOT_AVAILABLE: it has no leader"
    )
    expect(state_of(page)).to_have_text("77")


def test_tells_the_age_by_the_clock_of_the_server(topic, program, visit):
    topic.send_state(77)
    program.comes_to(77)
    ahead = "Date.now = ((now) => () => now() + 3_600_000)(Date.now);"
    ahead += "delete window.SharedWorker"  # whose clock is not this page's, here alone
    page = visit(program, script=ahead)
    expect(connection_of(page)).to_have_text(LIVE)
    expect(page.locator("#origin")).to_contain_text(re.compile("just now|[0-9]+ s ago"))


def test_comes_to_the_newest_of_many_and_does_not_chatter(topic, program, visit):
    page = visit(program)
    expect(connection_of(page)).to_have_text(LIVE)
    page.evaluate(
        """() => {
            window.announcements = 0;
            const count = () => window.announcements++;
            const announcement = document.querySelector("[aria-live]");
            new MutationObserver(count).observe(announcement, { childList: true });
        }"""
    )
    began = time.monotonic()
    for number in range(1, 300):
        topic.send_state(number)
    expect(state_of(page)).to_have_text("299")
    for number in range(300, 312):
        topic.send_state(number)
        expect(state_of(page)).to_have_text(str(number))
    announcements = page.evaluate("window.announcements")
    assert announcements <= 1 + (time.monotonic() - began) / 5
    expect(page.locator("[aria-live]")).to_have_text("The state is 311")


def test_works_under_a_prefix(topic, serving, visit, complaints):
    topic.send_state(77)
    with serving(topic, SCRIPT_NAME="/models") as program:
        eventually(lambda: program.get("/models/healthz"))
        page = visit(program, "/models/")
        expect(state_of(page)).to_have_text("77")
        expect(connection_of(page)).to_have_text(LIVE)
        page.get_by_role("link", name="docs").click()
        expect(page.get_by_text("/state/stream", exact=False)).to_be_visible()
    assert complaints == []


def test_works_behind_a_proxy_that_takes_a_prefix_away(topic, program, visit, tmp_path):
    topic.send_state(77)
    with proxy("nginx", program.port, tmp_path / "nginx", prefix="/models") as port:
        page = visit(program, "/models/", port=port)
        expect(state_of(page)).to_have_text("77")
        expect(connection_of(page)).to_have_text(LIVE)
        page.get_by_role("link", name="docs").click()
        page.get_by_text("/readyz", exact=True).click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.get_by_text(f"http://localhost:{port}/models/readyz").first).to_be_visible()
        expect(page.get_by_text('"ready"').first).to_be_visible()


def test_says_what_to_do_without_scripts(topic, program, visit):
    topic.send_state(0)
    program.comes_to(0)
    page = visit(program, java_script_enabled=False)
    page.locator("noscript").get_by_role("link", name="the state").click()
    expect(page.locator("body")).to_have_text('{"state":0}')


def test_says_in_words_that_the_state_is_the_initial_one(make_topic, serving, visit):
    topic = make_topic()
    with serving(topic) as program:
        program.comes_to(0)
        page = visit(program)
        expect(state_of(page)).to_have_text("0")
        expect(page.locator("#origin")).to_have_text(
            f"the initial value: {topic.name} holds no valid message"
        )


@pytest.mark.parametrize("state", [77, "word " * 200, {"key" * 40: ["value" * 100]}])
def test_fits_a_phone(topic, program, visit, picture, state):
    topic.send_state(state)
    program.comes_to(state)
    page = visit(program, viewport={"width": 360, "height": 740}, is_mobile=True)
    expect(connection_of(page)).to_have_text(LIVE)
    expect(page.locator("#changes li").first).to_be_visible()
    picture(page, f"phone-{type(state).__name__}")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_is_light_or_dark_as_its_reader_prefers(program, visit):
    def brightness(scheme: str) -> int:
        page = visit(program, color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", color)[:3]))

    assert brightness("light") > 600
    assert brightness("dark") < 150


def test_can_be_used_with_the_keyboard_and_a_screen_reader(topic, program, visit):
    topic.send_state(77)
    program.comes_to(77)
    page = visit(program)
    expect(state_of(page)).to_have_text("77")
    expect(page.locator("[aria-live=polite]")).to_contain_text("The state is 77")
    for landmark in ("banner", "main", "contentinfo", "navigation"):
        expect(page.get_by_role(landmark)).to_have_count(1)
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == ["77", "docs", "status", "metrics", "state"]
    expect(page.get_by_role("columnheader", name="lag")).to_be_visible()
    expect(page.get_by_role("rowheader", name="0")).to_be_visible()


def test_says_when_the_server_is_away_and_comes_back_by_itself(topic, serving, visit, picture):
    port = free_port()
    topic.send_state("before")
    with serving(topic, port) as program:
        program.comes_to("before")
        page = visit(program)
        expect(connection_of(page)).to_have_text(LIVE)
    expect(connection_of(page)).to_have_text("This server does not answer")
    expect(state_of(page)).to_have_text("before")
    picture(page, "server-away")
    topic.send_state("after")
    with serving(topic, port):
        expect(connection_of(page)).to_have_text(LIVE)
        expect(state_of(page)).to_have_text("after")


def test_notices_a_server_that_falls_silent(topic, program, visit):
    topic.send_state("before")
    program.comes_to("before")
    page = visit(program)
    expect(connection_of(page)).to_have_text(LIVE)
    processes = program.tree()
    for process in processes:
        freeze(process.pid)
    try:
        expect(connection_of(page)).to_have_text("This server does not answer")
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
    expect(connection_of(page)).to_have_text(LIVE)
    topic.send_state("after")
    expect(state_of(page)).to_have_text("after")


def test_follows_again_after_a_network_that_lost_its_stream_without_a_word(topic, program, visit):
    topic.send_state("before")
    program.comes_to("before")
    with network(program.port) as between:
        page = visit(program, port=between.port)
        expect(connection_of(page)).to_have_text(LIVE)
        between.go_down()
        expect(connection_of(page)).to_have_text("This server does not answer")
        between.come_back()
        expect(connection_of(page)).to_have_text(LIVE, timeout=NOTICED_MS)
        topic.send_state("after")
        expect(state_of(page)).to_have_text("after")


def test_waits_for_its_turn_where_as_many_follow_as_may(topic, serving, visit):
    topic.send_state(77)
    with serving(topic, STATE_MAX_WAITING="1") as program:
        program.comes_to(77)
        first = visit(program)
        expect(connection_of(first)).to_have_text(LIVE)
        second = visit(program)
        expect(connection_of(second)).to_have_text("As many follow as may")
        first.close()
        expect(connection_of(second)).to_have_text(LIVE)
        expect(state_of(second)).to_have_text("77")


@pytest.mark.own_kafka
def test_says_when_kafka_is_away_and_keeps_the_last_state(served_from_its_own, complaints, picture):
    with served_from_its_own("before") as (kafka, topic, page):
        kafka.kill()
        expect(connection_of(page)).to_have_text("Kafka is away")
        expect(page.locator("#reason")).to_contain_text("This is the last known state")
        expect(page.locator("#reason")).to_contain_text(kafka.address)
        expect(state_of(page)).to_have_text("before")
        picture(page, "kafka-away")
        kafka.start()
        expect(connection_of(page)).to_have_text(LIVE, timeout=40_000)
        topic.send_state("after")
        expect(state_of(page)).to_have_text("after")
        expect(page.locator("#reason")).to_be_hidden()
    assert complaints == []


def test_the_description_is_shown_without_the_internet(program, visit, complaints, picture):
    page = visit(program, "/docs")
    expect(page.get_by_text("/state/stream", exact=True)).to_be_visible()
    expect(page.get_by_text("Errors", exact=False)).to_have_count(0)
    page.get_by_text("/state", exact=True).click()
    expect(page.get_by_text("min_offset").first).to_be_visible()
    picture(page, "docs")
    assert complaints == []
