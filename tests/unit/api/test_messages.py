"""Validation of messages; errors never repeat the value."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError
from wasession_api.http.problem import HTTPProblem, describe_error
from wasession_api.session_pod.messages import IncomingMessage, SendText
from wasession_api.v1alpha1 import Phase
from wasession_pod.api.operations import ContactPath, PageQuery, SendHeaders


@pytest.mark.parametrize(
    ("to", "chat"),
    [
        ("15551234567", "15551234567@c.us"),
        ("+15551234567", "15551234567@c.us"),
        ("15551234567@c.us", "15551234567@c.us"),
        ("123456789012345@lid", "123456789012345@lid"),
        ("120363000000000001@g.us", "120363000000000001@g.us"),
        ("15551234567-1400000000@g.us", "15551234567-1400000000@g.us"),
    ],
)
def test_a_recipient_is_a_phone_number_or_a_chat(to: str, chat: str) -> None:
    assert SendText(to=to, text="x").to == chat


@pytest.mark.parametrize(
    "to",
    [
        "",
        "nobody",
        "0123456789",
        "1555123456789012",
        "1; drop",
        "status@broadcast",
        "15551234567\n",
        "15551234567@c.us.evil",
    ],
)
def test_anything_else_is_rejected_as_recipient(to: str) -> None:
    with pytest.raises(ValidationError):
        SendText(to=to, text="x")


@pytest.mark.parametrize(
    ("message_id", "good"),
    [
        ("true_15551234567@c.us_3EB0F1A2B3C4D5E6F708", True),
        ("false_120363000000000001@g.us_3A00_15550001111@c.us", True),
        ("false_120363000000000001@g.us_3A00_123456789012345:7@lid", True),
        ("3EB0F1A2B3C4D5E6F708", False),
        ("true_15551234567@c.us_", False),
        ("maybe_15551234567@c.us_3EB0F1A2B3C4", False),
    ],
)
def test_reply_to_is_a_message_id(message_id: str, good: bool) -> None:
    body = {"to": "15551234567", "text": "x", "replyTo": message_id}
    if good:
        assert SendText.model_validate(body).reply_to == message_id
    else:
        with pytest.raises(ValidationError):
            SendText.model_validate(body)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u00a0\u3000", " " * 65536])
def test_a_text_without_content_is_rejected_with_a_sentence(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SendText(to="15551234567", text=text)
    assert describe_error(caught.value).startswith("text: must have more than white space")


@pytest.mark.parametrize("text", [".", " x ", "\n\ntwo\nlines\n"])
def test_white_space_around_a_text_is_left_alone(text: str) -> None:
    assert SendText(to="15551234567", text=text).text == text


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SendText, {"to": "+1 (555) 123-4567", "text": "x"}),
        (SendText, {"to": "15551234567", "text": "x", "replyTo": "1"}),
        (SendText, {"to": "15551234567", "text": " "}),
        (ContactPath, {"id": "nobody"}),
        (SendHeaders, {"Idempotency-Key": "with space"}),
        (PageQuery, {"continue": "!"}),
    ],
)
def test_errors_say_what_is_right_in_place_of_a_regular_expression(
    model: type[BaseModel], fields: dict[str, str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    assert " must " in describe_error(caught.value)
    assert "pattern" not in describe_error(caught.value)


def test_errors_do_not_repeat_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        SendText.model_validate({"to": "nobody-secret", "text": "secret"})
    assert describe_error(caught.value).startswith("to: must be a phone number")
    with pytest.raises(ValidationError) as caught:
        SendText.model_validate({"to": "15551234567", "text": 7777})
    assert describe_error(caught.value) == "text: Input should be a valid string"


def test_a_long_sender_name_is_truncated() -> None:
    payload = {
        "id": "i",
        "chatId": "c",
        "from": "f",
        "fromMe": False,
        "type": "chat",
        "sentAt": "2026-01-01T00:00:00Z",
    }
    message = IncomingMessage.model_validate(payload | {"senderName": "n" * 10_000, "newer": 1})
    assert message.sender_name is not None
    assert len(message.sender_name) == 512
    assert message.dump()["from"] == "f"


def test_an_http_problem_has_the_phase() -> None:
    problem = HTTPProblem(503, "Not ready", "the session is Starting", {"Retry-After": "5"})
    assert problem.problem(Phase.STARTING).dump() == {
        "type": "about:blank",
        "title": "Not ready",
        "status": 503,
        "detail": "the session is Starting",
        "phase": "Starting",
    }
