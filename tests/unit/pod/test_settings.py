"""Settings: the message for each invalid one, and that the README lists them all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram
from wasession_pod import metrics
from wasession_pod.settings import Settings, read, unknown_variables

README = Path(__file__).parents[3] / "session-pod" / "README.md"
GOOD: dict[str, Any] = {"client_id": "sales", "token": "t"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"client_id": "a b"}, "WASESSION_CLIENT_ID: must be 1 to 64 letters, digits, _ and -"),
        ({"token": ""}, "WASESSION_TOKEN: "),
        (
            {"token_file": "/nowhere"},
            "set exactly one of WASESSION_TOKEN and WASESSION_TOKEN_FILE",
        ),
        ({"port": "0"}, "WASESSION_PORT: Input should be greater than or equal to 1"),
        (
            {"whatsapp_url": "web.whatsapp.com/x"},
            "WASESSION_WHATSAPP_URL: must be an http or https origin",
        ),
        (
            {"phone_number": "+1 555"},
            "WASESSION_PHONE_NUMBER: must be country code and number in digits only",
        ),
        (
            {"pairing_method": "PairingCode"},
            "WASESSION_PAIRING_METHOD=PairingCode requires WASESSION_PHONE_NUMBER",
        ),
        (
            {"pairing_method": "Telepathy"},
            "WASESSION_PAIRING_METHOD: Input should be 'QRCode' or 'PairingCode'",
        ),
        ({"extra_args": "--mute-audio"}, "WASESSION_EXTRA_ARGS: must be a list in JSON"),
        ({"extra_args": '{"a": 1}'}, "WASESSION_EXTRA_ARGS: Input should be a valid list"),
        ({"reconnect_initial_delay": "9", "reconnect_max_delay": "3"}, "must not exceed"),
        (
            {"proxy_server": "http://proxy:3128"},
            "WASESSION_PROXY_SERVER: not a setting; WASESSION_PROXY_DIRECTORY names a directory",
        ),
        ({"port": "x", "max_rounds": "0"}, "; WASESSION_MAX_ROUNDS: "),
    ],
)
def test_an_invalid_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in (GOOD | given).items():
        monkeypatch.setenv(f"WASESSION_{name.upper()}", value)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read()
    assert not any(
        len(value) > 3 and value in str(error.value)
        for name, value in given.items()
        if name == "token"
    )


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Web.WhatsApp.com", "https://web.whatsapp.com"),
        ("https://web.whatsapp.com:443", "https://web.whatsapp.com"),
        ("http://standin:80", "http://standin"),
        ("http://localhost:443", "http://localhost:443"),
        ("https://localhost:8443", "https://localhost:8443"),
    ],
)
def test_an_origin_is_normalized_as_in_browsers(url: str, origin: str) -> None:
    assert Settings(**GOOD, whatsapp_url=url).whatsapp_url == origin


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_token_file_must_contain_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    monkeypatch.setenv("WASESSION_CLIENT_ID", "sales")
    monkeypatch.setenv("WASESSION_TOKEN_FILE", str(tmp_path / "token"))
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(ValueError, match="WASESSION_TOKEN_FILE: "):
        read()
    (tmp_path / "token").write_text("first\n")
    settings = read()
    assert settings.bearer == "first"
    (tmp_path / "token").write_text("second\n")
    assert settings.bearer == "second", "a rotated Secret takes effect at once"


def test_unknown_variables() -> None:
    assert unknown_variables(["WASESSION_TAKOVER", "WASESSION_TAKEOVER", "HOME"]) == [
        "WASESSION_TAKOVER"
    ]


def first_column(section: str, name: str) -> set[str]:
    """Return the names in the first column of a section's table."""
    text = README.read_text().partition(f"# {section}\n")[2].partition("\n#")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {match for row in rows for match in re.findall(f"`({name})", row)}


def test_the_readme_lists_every_setting() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    assert first_column("Settings", "[A-Z_0-9]+") == settings


def test_the_readme_lists_every_metric() -> None:
    kinds = (Counter, Gauge, Histogram)
    ours = {
        next(iter(metric.describe())).name
        for metric in vars(metrics).values()
        if isinstance(metric, kinds)
    }
    assert {name.removesuffix("_total") for name in first_column("Metrics", "[a-z_]+")} == ours
