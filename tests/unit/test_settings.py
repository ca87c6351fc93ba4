from __future__ import annotations

import os
import subprocess
import sys

import pytest

from app.settings import Settings, SettingsError


def test_only_the_topic_is_required():
    assert Settings.from_environ({"KAFKA_TOPIC": "t"}) == Settings(topic="t")


def test_reads_every_variable():
    assert Settings.from_environ(
        {
            "KAFKA_TOPIC": "models.v1",
            "KAFKA_BOOTSTRAP_SERVERS": "a:1,b,[::1]:9092",
            "KAFKA_CONSUMER_GROUP_PREFIX": "api",
            "KAFKA_TOPIC_AUTO_CREATE": "false",
            "KAFKA_METADATA_MAX_AGE_MS": "1000",
            "STATE_INITIAL": '{"model": null}',
            "LOG_LEVEL": "debug",
            "SOMETHING_ELSE": "ignored",
        }
    ) == Settings(
        topic="models.v1",
        bootstrap_servers="a:1,b,[::1]:9092",
        group_prefix="api",
        topic_auto_create=False,
        metadata_max_age_ms=1000,
        initial='{"model":null}',
        log_level="DEBUG",
    )


def test_an_empty_variable_counts_as_not_set():
    given = {"KAFKA_TOPIC": "t", "STATE_INITIAL": "", "KAFKA_METADATA_MAX_AGE_MS": ""}
    assert Settings.from_environ(given) == Settings(topic="t")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA_TOPIC", "a topic"),
        ("KAFKA_TOPIC", ".."),
        ("KAFKA_TOPIC", "t" * 250),
        ("KAFKA_TOPIC", "t\n"),
        ("KAFKA_BOOTSTRAP_SERVERS", ","),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:b"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:70000"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka://a:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092?b=c"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a 9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a;9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092\n"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:0"),
        ("KAFKA_CONSUMER_GROUP_PREFIX", "g" * 201),
        ("KAFKA_CONSUMER_GROUP_PREFIX", "a\nb"),
        ("KAFKA_TOPIC_AUTO_CREATE", "perhaps"),
        ("KAFKA_METADATA_MAX_AGE_MS", "30 s"),
        ("KAFKA_METADATA_MAX_AGE_MS", "0"),
        ("STATE_INITIAL", "nope"),
        ("STATE_INITIAL", "NaN"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_nonsense_is_one_line_that_names_the_variable_and_what_is_accepted(variable, value):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"KAFKA_TOPIC": "t", variable: value})
    line = str(caught.value)
    assert line.startswith(f"{variable} is {value!r}: accepted")
    assert "\n" not in line


def test_a_missing_topic_is_named():
    with pytest.raises(SettingsError, match="KAFKA_TOPIC is not set: accepted is"):
        Settings.from_environ({})


@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_gunicorn_ends_at_once_on_a_setting_that_makes_no_sense(options):
    environ = {**os.environ, "KAFKA_TOPIC": "t", "STATE_INITIAL": "nope"}
    command = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", *options, "wsgi:app"]
    ended = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == "Error: STATE_INITIAL is 'nope': accepted is a JSON value\n"
