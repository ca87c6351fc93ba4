from __future__ import annotations

from app.commands.check import described, ready_seconds
from app.settings import Settings
from app.settings.model import ModelSettings
from app.state import Snapshot


def test_a_message_without_a_timestamp_is_described_without_one():
    assert described(Snapshot("1", -1, 0, 5)) == "partition 0, offset 5: 1"
    assert described(Snapshot("1", 0, 0, 5)).startswith("partition 0, offset 5, of 19")


def test_a_model_may_take_as_long_as_the_service_gives_it():
    model = ModelSettings(fetch_seconds=300, load_seconds=200)
    assert ready_seconds(Settings("topic", loader="onnx", model=model)) > 500
