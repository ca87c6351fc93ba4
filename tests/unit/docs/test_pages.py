"""The docs say what there is, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from app import create_app
from app.commands import main
from app.settings import Settings
from app.settings.environment import kinds_of
from app.settings.model import ModelSettings
from app.settings.security import SecuritySettings
from dev.docs.pages import FOLDER, renewed
from tests.support.docs import section, table_rows, text_of
from tests.support.processes import ROOT

LONGEST_README = 150  # lines
# of a loader whose class is not known where it is raised
PASSED_ON = "reason"


@pytest.mark.parametrize("page", sorted(path.name for path in FOLDER.glob("*.md")))
def test_generated_parts_are_as_python_m_dev_docs_writes_them(page):
    text = (FOLDER / page).read_text()
    assert renewed(text) == text, "run: make docs"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


def test_the_readme_links_to_every_page():
    links = re.findall(r"\(docs/(\w+\.md)\)", (ROOT / "README.md").read_text())
    assert set(links) == {path.name for path in FOLDER.glob("*.md")}


def declared() -> dict[str, str]:
    """The attribute of each setting, by its variable."""
    return {
        kind.data_key or "": attribute
        for settings in (Settings, SecuritySettings, ModelSettings)
        for attribute, kind in kinds_of(settings).items()
    }


def defaults() -> dict[str, str]:
    """What the page of settings says."""
    titles = ("The topic, the state and the log", "TLS and signing in")
    rows = [row for title in titles for row in table_rows("settings", title)]
    return {row[0].strip("`"): row[2].strip("`") for row in rows}


def test_the_settings_of_the_readme_have_the_defaults_that_they_have():
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\| `([A-Z_]+)` \| `?(.*?)`? \|", readme, re.MULTILINE)
    assert len(shown) == 8
    declared_defaults = defaults()
    for variable, default in shown:
        told = f"README.md says that the default of {variable} is {default}"
        assert default == declared_defaults[variable], told


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(FOLDER.glob("*.md"))], ids=lambda page: page.name
)
def test_every_setting_that_is_named_exists(page):
    of_make = {"KAFKA_CLIENT", "KAFKA_VERSION"}
    wrong_on_purpose = {"KAFKA_BROKERS"}
    named = re.findall(r"(?<![\w/])(?:KAFKA|STATE|MODEL|LOG|API)_[A-Z_]*[A-Z]\b", page.read_text())
    assert set(named) - of_make - wrong_on_purpose <= declared().keys()


@pytest.mark.parametrize("variable", declared())
def test_every_setting_is_read_somewhere(variable):
    attribute = re.compile(rf"\.{declared()[variable]}\b")
    read_in = [path for path in (ROOT / "app").rglob("*.py") if attribute.search(path.read_text())]
    assert read_in, f"nothing in app/ reads {variable}"


def test_every_route_is_documented_and_every_documented_one_exists():
    models = ModelSettings.from_environ({}, is_used=True)
    app = create_app(Settings(topic="t", loader="onnx", model=models), starts_consumer=False)
    described = app.test_client().get("/openapi.json").json["paths"].keys()
    asked = re.findall(r"localhost:8000(/[\w/.]*)?", section("http", "What can I ask over HTTP?"))
    of_models = re.findall(r"`(/v2.*?)`", "".join(row[0] for row in table_rows("models", "Asking")))
    assert {path or "/" for path in asked} | set(of_models) == described


def reasons() -> Iterator[str]:
    """Those that the program gives to messages that it does not serve."""
    for path in (ROOT / "app").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id in ("InvalidMessage", "RetryableError")
            ):
                match call.args[0]:
                    case ast.Constant(str(reason)):
                        yield reason
                    case ast.Name(name) | ast.Attribute(attr=name):
                        assert name == PASSED_ON, path


def test_every_reason_to_refuse_a_message_is_documented_and_every_documented_one_is_given():
    tables = [("messages", "What is invalid"), ("models", "Reasons")]
    rows = [row for page, title in tables for row in table_rows(page, title)]
    assert {row[0].strip("`") for row in rows} == set(reasons())


def test_every_make_that_is_shown_is_a_command():
    targets = re.findall(r"^([\w.%/ -]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name for target in targets for name in target.split()}
    shown = {
        name
        for page in (ROOT / "README.md", *FOLDER.glob("*.md"))
        for name in re.findall(r"(?:`|\$ )(?:[A-Z_]+=\S+ )*make ([a-z-]+)", page.read_text())
    }
    assert {"run", "test"} <= shown <= known


@pytest.mark.parametrize("command", main.commands)
def test_every_command_is_documented(command):
    assert section("command", command)


def test_every_option_of_the_producer_is_documented_and_every_documented_one_exists():
    options = {option for parameter in main.commands["produce"].params for option in parameter.opts}
    shown = set(re.findall(r"(--[a-z]+)", section("command", "produce")))
    assert shown == {option for option in options if option.startswith("--")}


def test_every_page_answers_one_question():
    for path in FOLDER.glob("*.md"):
        assert re.match(r"# .*\?\n", text_of(path.stem)), path.name
