"""What a person sees of a model in a browser."""

from __future__ import annotations

import re

import requests
from playwright.sync_api import expect

from tests.support import models

expect.set_options(timeout=20_000)


def test_shows_the_model_and_the_next_one_without_a_reload(
    topic, serving, visit, complaints, picture, tmp_path
):
    cache = str(tmp_path / "cache")
    with serving(topic, STATE_LOADER="onnx", MODEL_CACHE_DIR=cache) as program:
        program.comes_to(0)
        page = visit(program, viewport={"width": 1920, "height": 1080})
        expect(page.locator("#state")).to_have_text("0")
        expect(page.locator("#connection")).to_have_text("No model yet")
        expect(page.locator(".model")).to_be_hidden()
        for version in ("7", "8"):
            topic.send_state(models.message(models.adding(int(version)), version, name="iris"))
            expect(page.locator("#state")).to_have_text(f"iris {version}")
            expect(page.locator("#connection")).to_have_text("Live")
            expect(page.locator("#file")).to_contain_text("from the message · sha256 ")
            expect(page.locator("#tensors tr").first).to_have_text("xinputFP32[-1,2]")
            expect(page.locator("#tensors tr").last).to_have_text("youtputFP32[-1,2]")
        ask = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        with requests.Session() as session:
            for _ in range(50):
                answer = session.post(
                    f"http://127.0.0.1:{program.port}/v2/models/iris/infer", json=ask, timeout=10
                )
                assert answer.status_code == 200
        expect(page.locator("#inferences")).to_contain_text(
            re.compile(
                r"served for \d+ s, [\d.]+ inferences a second, 99 % of them within [\d.]+ ms"
            )
        )
        picture(page, "model")
        assert complaints == []
