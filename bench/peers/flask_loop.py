"""Flask and a thread that loops over the consumer, as the tutorials have it."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from flask import Flask
from kafka import KafkaConsumer

app = Flask(__name__)
lock = threading.Lock()
state: dict[str, Any] = {"state": 0}


def follow() -> None:
    consumer = KafkaConsumer(
        os.environ["KAFKA_TOPIC"],
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        auto_offset_reset="earliest",
    )
    for message in consumer:
        try:
            newest = json.loads(message.value)["state"]
        except (ValueError, KeyError, TypeError):  # an invalid message
            continue
        with lock:
            state["state"] = newest


threading.Thread(target=follow, daemon=True).start()


@app.get("/state")
def get_state() -> dict[str, Any]:
    with lock:
        return dict(state)
