from __future__ import annotations

import re

from app import create_app
from app.settings import Settings
from app.settings.model import ModelSettings


def describe(**settings):
    app = create_app(Settings(topic="t", **settings), starts_consumer=False)
    return app, app.test_client().get("/openapi.json")


def test_describes_every_route():
    app, answer = describe()
    assert answer.json["openapi"].startswith("3.1")
    assets = {"/static/<path:filename>", "/docs/<path:name>"}
    assert answer.json["paths"].keys() == {rule.rule for rule in app.url_map.iter_rules()} - assets
    for path in answer.json["paths"].values():
        assert path["get"]["summary"]


def test_describes_inference_where_there_are_models():
    app, answer = describe(loader="onnx", model=ModelSettings.from_environ({}, is_used=True))
    described = {path: set(methods) for path, methods in answer.json["paths"].items()}
    assert described["/v2/models/{name}/versions/{version}/infer"] == {"post"}
    routes = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/v2")]
    assert sum(path.startswith("/v2") for path in described) == len(routes)
    operations = [it for path in answer.json["paths"].values() for it in path.values()]
    assert all(operation["summary"] for operation in operations)
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"state", "history", "status", "infer", "infer_of_version"} <= set(names)


def test_takes_the_shapes_from_the_schemas():
    _, answer = describe()
    schemas = answer.json["components"]["schemas"]
    assert schemas["State"]["required"] == ["state"]
    assert {"topic", "partitions", "last_error"} <= schemas["Status"]["properties"].keys()


def test_says_what_needs_the_token():
    app, answer = describe(api_token="s3cret")
    assert answer.status_code == 401
    given = {"Authorization": "Bearer s3cret"}
    described = app.test_client().get("/openapi.json", headers=given).json
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert described["paths"]["/state"]["get"]["security"] == [{"token": []}]
    assert "401" in described["paths"]["/state"]["get"]["responses"]
    assert "security" not in described["paths"]["/healthz"]["get"]


def test_what_is_said_without_the_token_is_as_described():
    app, _ = describe(
        api_token="s3cret", loader="onnx", model=ModelSettings.from_environ({}, is_used=True)
    )
    client = app.test_client()
    given = {"Authorization": "Bearer s3cret"}
    for path, methods in client.get("/openapi.json", headers=given).json["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                said = client.open(re.sub("{.*?}", "x", path), method=method)
                assert operation["responses"]["401"]["content"].keys() == {said.content_type}


def test_shows_the_description_with_what_is_served_here():
    app, _ = describe()
    client = app.test_client()
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    with client.get("/docs/swagger-ui-bundle.js") as script:
        assert script.mimetype == "text/javascript"


def test_pages_and_description_name_no_address_that_a_prefix_would_break():
    app, answer = describe()
    client = app.test_client()
    assert [server["url"] for server in answer.json["servers"]] == ["."]
    for path in ("/", "/docs"):
        page = client.get(path, headers={"Accept": "text/html"}).text
        addresses = re.findall(r'(?:href|src|data-\w+)="([^"]*)"', page)
        assert addresses
        assert not [it for it in addresses if it.startswith(("/", "http"))]
