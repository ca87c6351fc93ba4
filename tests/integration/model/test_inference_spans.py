"""The span of an inference links to that of the message which brought the model."""

from __future__ import annotations

import requests

from tests.support import models
from tests.support.tensors import tensor
from tests.support.trace_collector import collecting
from tests.support.waiting import eventually

X = {"inputs": [tensor([0, 0], [1, 2])]}
BAD = {"inputs": [tensor([0, 0, 0], [1, 3])]}


def infer(program, path, body, agent) -> int:
    url = f"http://127.0.0.1:{program.port}/v2/models/m{path}/infer"
    return requests.post(url, json=body, headers={"User-Agent": agent}, timeout=20).status_code


def test_an_inference_links_to_the_message_of_the_model_that_computed_it(topic, serving):
    with (
        collecting() as collector,
        serving(MODEL_KEEP_VERSIONS="1", **collector.environ) as program,
    ):
        for version, added in (("1", 5), ("2", 6)):
            topic.send_state(models.message(models.adding(added), version, "m"))
            program.serves_model(version)
        assert infer(program, "", X, "newest") == 200
        assert infer(program, "/versions/1", X, "kept") == 200
        assert infer(program, "", BAD, "refused") == 400
        assert infer(program, "/versions/9", X, "unknown") == 404

        def by_agent():
            spans = {s.attributes["user_agent.original"]: s for s in collector.of_requests}
            return {"newest", "kept", "refused", "unknown"} <= spans.keys() and spans

        spans = eventually(by_agent)
        offsets = {s.id: s.attributes["messaging.kafka.offset"] for s in collector.of_messages}
    linked = {
        agent: [offsets[link] for link in spans[agent].links]
        for agent in ("newest", "kept", "refused", "unknown")
    }
    assert linked == {"newest": [1], "kept": [0], "refused": [1], "unknown": []}
    assert spans["newest"].name == "POST /v2/models/<name>/infer"
    assert spans["kept"].name == "POST /v2/models/<name>/versions/<version>/infer"
    assert spans["kept"].attributes["http.response.status_code"] == 200
