"""What a reader types is possible: each command of each page is read by bash, and checked.

The plugin's are parsed by the plugin, requests are looked up in the OpenAPI documents, targets in
the Makefile. ``tests/integration/operator/test_documentation.py`` has kubectl, helm and manifests;
``tests/e2e/test_docs.py`` runs whole pages on a cluster.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click
import jsonschema_rs
import pytest
from support.documentation import (
    Block,
    Call,
    blocks,
    calls,
    fenced_calls,
    inline_calls,
    make_targets,
)
from support.testbed import ROOT
from wasession_cli.main import PROGRAM, cli
from wasession_gateway.operations import document as gateway_document
from wasession_pod.api.operations import api_document as pod_document

PROXIES = {"localhost:8080", "127.0.0.1:8080"}


def test_bash_reads_all_commands() -> None:
    assert len(fenced_calls()) > 100
    assert len(inline_calls()) > 50


def test_a_program_that_nobody_knows_would_be_found() -> None:
    with pytest.raises(AssertionError, match="kubectx"):
        calls("here", "kubectx sales")


# --- the plugin -----------------------------------------------------------------------------------


@pytest.fixture
def only_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse command lines without running the command."""
    monkeypatch.setattr(click.Command, "invoke", lambda *_: None)


def parse(call: Call) -> None:
    """Parse a command line of the plugin as it does itself."""
    cli.main([*call.arguments[1:]], prog_name=PROGRAM, standalone_mode=False)


def of_the_plugin(found: Iterable[Call]) -> Iterator[Call]:
    return (c for c in found if c.program == "kubectl" and c.arguments[:1] == ("wasession",))


def test_the_plugin_reads_its_commands(only_parsed: None) -> None:
    found = list(of_the_plugin(fenced_calls()))
    assert len(found) > 30
    for call in found:
        try:
            parse(call)
        except click.ClickException as error:
            pytest.fail(f"{call.where}: {shlex.join(call.arguments)}: {error.format_message()}")


def test_the_plugin_knows_what_sentences_name(only_parsed: None) -> None:
    """They may leave out arguments: `kubectl wasession backups` is a name too."""
    found = list(of_the_plugin(inline_calls()))
    assert len(found) > 20
    for call in found:
        try:
            parse(call)
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
            continue
        except click.ClickException as error:
            pytest.fail(f"{call.where}: {shlex.join(call.arguments)}: {error.format_message()}")


@pytest.mark.parametrize("wrong", ["qrcode a", "qr a --picture b", "backup --wait", "wake a b"])
def test_a_wrong_command_would_be_found(wrong: str, only_parsed: None) -> None:
    with pytest.raises(click.ClickException):
        parse(Call("here", "kubectl", ("wasession", *wrong.split())))


# --- make, Python ---------------------------------------------------------------------------------


def test_targets_of_make_exist() -> None:
    targets = make_targets()
    variables = set(re.findall(r"\$\(([A-Z]+)\)", (ROOT / "Makefile").read_text()))
    variables |= {"BASE", "SOURCE", "SITE_URL"}  # read from the environment
    found = [call for call in (*fenced_calls(), *inline_calls()) if call.program == "make"]
    assert len(found) > 10
    for call in found:
        for word in call.arguments:
            name, is_variable, _ = word.partition("=")
            assert name in (variables if is_variable else targets), f"{call.where}: make {word}"


def test_files_for_pytest_exist() -> None:
    found = [call for call in fenced_calls() if call.program == "pytest"]
    assert found
    for call in found:
        for word in call.arguments:
            if word.startswith("tests/"):
                assert (ROOT / word.partition("::")[0]).exists(), f"{call.where}: {word}"


@pytest.mark.parametrize("block", list(blocks("python", "json")), ids=lambda block: block.heading)
def test_other_code_can_be_read(block: Block) -> None:
    if block.language == "python":
        ast.parse(block.text)
    else:
        json.loads(block.text)


# --- requests -------------------------------------------------------------------------------------


def test_requests_are_those_of_the_openapi_documents() -> None:
    found = [call for call in fenced_calls() if call.program == "curl"]
    ours = [call for call in found if any(f"//{host}/" in with_scheme(call) for host in PROXIES)]
    assert len(ours) > 10
    for call in ours:
        check_request(call)


def with_scheme(call: Call) -> str:
    """Return the address of a request."""
    [address] = [
        word for word in call.arguments if re.match(r"(https?://|localhost|127\.0\.0\.1)\S+$", word)
    ]
    return address if "://" in address else f"http://{address}"


def check_request(call: Call) -> None:
    """Find the operation of a request, and validate its query and its JSON."""
    arguments, url = list(call.arguments), urlsplit(with_scheme(call))
    document = gateway_document() if url.path.startswith("/whatsapp") else pod_document()
    body = option(arguments, "-d")
    is_form = "-F" in arguments
    method = option(arguments, "-X") or ("POST" if body or is_form else "GET")
    operation = find(document, method, url.path)
    assert operation is not None, f"{call.where}: {method} {url.path}"
    parameters = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
    unknown = {name for name, _ in parse_qsl(url.query)} - parameters
    assert not unknown, f"{call.where}: {unknown}"
    contents = operation.get("requestBody", {}).get("content", {})
    if is_form:
        assert "multipart/form-data" in contents, call.where
    if body:
        schema = {**contents["application/json"]["schema"], "components": document["components"]}
        text = body.replace("age1…", f"age1{'q' * 58}").replace("SIGNED-URL", "https://a.example/b")
        jsonschema_rs.Draft202012Validator(schema).validate(json.loads(text))


def option(arguments: list[str], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


def find(document: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    for template, operations in document["paths"].items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", template)
        if re.fullmatch(pattern, path) and method.lower() in operations:
            operation: dict[str, Any] = operations[method.lower()]
            return operation
    return None


@pytest.mark.parametrize(
    "wrong",
    [
        ("http://localhost:8080/whatsapp/session",),
        ("http://localhost:8080/v1/events?from=1",),
        ("-X", "PUT", "http://localhost:8080/v1/messages"),
    ],
)
def test_a_wrong_request_would_be_found(wrong: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        check_request(Call("here", "curl", wrong))


def test_a_wrong_body_would_be_found() -> None:
    body = ("-d", '{"recipient": "15550001111"}', "http://localhost:8080/v1/messages")
    with pytest.raises(jsonschema_rs.ValidationError):
        check_request(Call("here", "curl", body))
