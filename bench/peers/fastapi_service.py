"""FastAPI and aiokafka: a task reads every message, and a view gives the last state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from fastapi import FastAPI

state: dict[str, Any] = {"state": 0}


async def follow(consumer: AIOKafkaConsumer) -> None:
    async for message in consumer:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # an invalid message
            state["state"] = json.loads(message.value)["state"]


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    consumer = AIOKafkaConsumer(
        os.environ["KAFKA_TOPIC"],
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        # every instance follows by itself, so that none waits for the others of a group
        group_id=None,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    following = asyncio.create_task(follow(consumer))
    yield
    following.cancel()
    await consumer.stop()


app = FastAPI(lifespan=lifespan)


@app.get("/state")  # type: ignore[untyped-decorator]
async def get_state() -> dict[str, Any]:
    return state
