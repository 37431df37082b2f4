"""The OpenAPI builder: what it makes of a table of operations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from wasession_api.base import Model
from wasession_api.http.openapi import Answer, Content, Operation, document
from wasession_api.session_pod.messages import Chat, Page, SendMedia, SendText, SentMessage


class Query(Model):
    limit: Annotated[int, Field(ge=1, le=500, description="How many.")] = 100
    kinds: list[str] = Field(["a"])
    after: Annotated[str, Field(max_length=8)] | None = None


class Path(Model):
    id: str


OPERATIONS = [
    Operation(
        "POST",
        "/things",
        "sendThing",
        "Sends one.",
        {201: Answer("Sent.", (Content(SentMessage),), {"Location": "Where it is."})},
        bodies=(
            Content(SendText, example=SendText(to="15551234567", text="Hello")),
            Content(SendMedia, "multipart/form-data", files=("file",)),
        ),
        problems={404: "Nobody of that number."},
    ),
    Operation(
        "GET",
        "/things",
        "listThings",
        "Lists them.",
        {200: Answer("Some.", (Content(Page[Chat]),))},
        query=Query,
    ),
    Operation(
        "GET",
        "/things/{id}",
        "getThing",
        "One.",
        {204: Answer("There.")},
        path_parameters=Path,
        secured=False,
    ),
]
DOCUMENT = document("Things", "1", "About things.", OPERATIONS, "A token.")


def test_bodies_and_answers_refer_to_the_models() -> None:
    post = DOCUMENT["paths"]["/things"]["post"]
    assert post["requestBody"]["content"]["application/json"] == {
        "schema": {"$ref": "#/components/schemas/SendText"},
        "example": {"to": "15551234567@c.us", "text": "Hello"},
    }
    assert post["responses"]["201"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/SentMessage"
    }
    assert post["responses"]["201"]["headers"]["Location"]["description"] == "Where it is."
    problem = post["responses"]["404"]["content"]["application/problem+json"]
    assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert problem["example"]["title"] == "Not Found"
    assert {"SendText", "SentMessage", "Problem", "Page_Chat_", "Chat"} <= set(
        DOCUMENT["components"]["schemas"]
    )


def test_a_form_has_its_files() -> None:
    form = DOCUMENT["paths"]["/things"]["post"]["requestBody"]["content"]["multipart/form-data"][
        "schema"
    ]
    assert form["properties"]["file"] == {"type": "string", "format": "binary"}
    assert form["required"] == ["to", "file"]
    assert form["additionalProperties"] is False


def test_each_field_of_a_model_is_a_parameter() -> None:
    limit, kinds, after = DOCUMENT["paths"]["/things"]["get"]["parameters"]
    assert (limit["in"], limit["required"], limit["description"]) == ("query", False, "How many.")
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}
    assert kinds["explode"] is False
    assert after["schema"] == {"type": "string", "maxLength": 8}
    [name] = DOCUMENT["paths"]["/things/{id}"]["get"]["parameters"]
    assert (name["in"], name["required"]) == ("path", True)


def test_the_token_is_asked_for_where_it_is_needed() -> None:
    assert DOCUMENT["paths"]["/things"]["get"]["security"] == [{"bearer": []}]
    assert DOCUMENT["paths"]["/things/{id}"]["get"]["security"] == []
    assert "401" in DOCUMENT["paths"]["/things"]["get"]["responses"]
    assert "401" not in DOCUMENT["paths"]["/things/{id}"]["get"]["responses"]
    assert DOCUMENT["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
