"""An OpenAPI 3.1 document from a table of operations whose bodies, parameters and answers are pydantic models.

Pure: the session pod and the gateway build their ``/openapi.json`` with it from the table that
their routes are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wasession_api.base import Model
from wasession_api.http.problem import MEDIA_TYPE, Problem

JSON = "application/json"
SECURITY = "bearer"
BINARY = {"type": "string", "format": "binary"}
Schema = dict[str, Any]


class Nothing(Model):
    """No parameters, or an empty object."""


@dataclass(frozen=True)
class Content:
    """A body of a request or answer.

    ``schema`` is a pydantic model or a plain schema. ``files`` names the parts of a form that are
    files. The example is an object of the model, so that it can't be a wrong one.
    """

    schema: type[BaseModel] | Schema
    media_type: str = JSON
    files: tuple[str, ...] = ()
    example: BaseModel | None = None


@dataclass(frozen=True)
class Answer:
    """What is answered when all is well. ``headers`` are names with their description."""

    description: str
    contents: tuple[Content, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    ``query``, ``headers`` and ``path_parameters`` are models with one field per parameter: the
    handler validates with the model that the document shows. ``problems`` says when which error
    status comes. ``secured`` operations need the token.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    tag: str = ""
    query: type[BaseModel] = Nothing
    headers: type[BaseModel] = Nothing
    path_parameters: type[BaseModel] = Nothing
    bodies: tuple[Content, ...] = ()
    problems: Mapping[int, str] = field(default_factory=dict)
    secured: bool = True


def document(
    title: str,
    version: str,
    description: str,
    operations: Iterable[Operation],
    security: str,
    also: Iterable[type[BaseModel]] = (),
) -> Schema:
    """The whole document as plain values. ``security`` describes the bearer token, ``also`` are models to have in it."""
    operations = list(operations)
    models: set[type[BaseModel]] = {Problem, *also}
    for operation in operations:
        models.update(_models(operation))
    schemas, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    references: dict[type[BaseModel], Schema] = {
        model: schema for (model, _), schema in schemas.items()
    }  # type: ignore[misc]
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, references
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                SECURITY: {"type": "http", "scheme": "bearer", "description": security}
            },
        },
    }


def _models(operation: Operation) -> Iterable[type[BaseModel]]:
    answers = (content for answer in operation.answers.values() for content in answer.contents)
    for content in (*operation.bodies, *answers):
        if not isinstance(content.schema, dict):
            yield content.schema


def _operation(operation: Operation, references: Mapping[type[BaseModel], Schema]) -> Schema:
    result: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": [{SECURITY: []}] if operation.secured else [],
        "responses": {
            str(status): _answer(answer, references)
            for status, answer in sorted(operation.answers.items())
        }
        | {
            str(status): _problem(status, when, references)
            for status, when in sorted(_problems(operation).items())
        },
    }
    if operation.description:
        result["description"] = operation.description
    if operation.tag:
        result["tags"] = [operation.tag]
    places = (
        ("path", operation.path_parameters),
        ("query", operation.query),
        ("header", operation.headers),
    )
    if parameters := [
        parameter for place, model in places for parameter in _parameters(place, model)
    ]:
        result["parameters"] = parameters
    if operation.bodies:
        result["requestBody"] = {
            "required": True,
            "content": _contents(operation.bodies, references),
        }
    return result


def _parameters(place: str, model: type[BaseModel]) -> Iterable[Schema]:
    schema = model.model_json_schema(by_alias=True)
    for name, described in schema.get("properties", {}).items():
        described = _inlined(described, schema.get("$defs", {}))
        described.pop("title", None)
        parameter = {
            "name": name,
            "in": place,
            "required": place == "path" or name in schema.get("required", []),
        }
        if words := described.pop("description", None):
            parameter["description"] = words
        if described.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        yield parameter | {"schema": described}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Puts references in place, and takes out null: a parameter that isn't there is left out."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    schema = {
        key: _inlined(value, definitions)
        for key, value in schema.items()
        if (key, value) != ("default", None)
    }
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return (
        {**{key: value for key, value in schema.items() if key != "anyOf"}, **choices[0]}
        if len(choices) == 1
        else schema
    )


def _answer(answer: Answer, references: Mapping[type[BaseModel], Schema]) -> Schema:
    result: Schema = {"description": answer.description}
    if answer.contents:
        result["content"] = _contents(answer.contents, references)
    if answer.headers:
        result["headers"] = {
            name: {"description": words, "schema": {"type": "string"}}
            for name, words in answer.headers.items()
        }
    return result


def _problems(operation: Operation) -> Mapping[int, str]:
    return ({401: "The token is missing or wrong."} if operation.secured else {}) | dict(
        operation.problems
    )


def _problem(status: int, when: str, references: Mapping[type[BaseModel], Schema]) -> Schema:
    example = Problem(title=HTTPStatus(status).phrase, status=status, detail=when)
    return _answer(Answer(when, (Content(Problem, MEDIA_TYPE, example=example),)), references)


def _contents(contents: Iterable[Content], references: Mapping[type[BaseModel], Schema]) -> Schema:
    return {content.media_type: _content(content, references) for content in contents}


def _content(content: Content, references: Mapping[type[BaseModel], Schema]) -> Schema:
    schema = content.schema if isinstance(content.schema, dict) else references[content.schema]
    if content.files:
        form = (
            content.schema.model_json_schema(by_alias=True)
            if not isinstance(content.schema, dict)
            else content.schema
        )
        form = _inlined(form, form.get("$defs", {}))
        form.pop("$defs", None)
        form["properties"] |= dict.fromkeys(content.files, BINARY)
        form["required"] = [*form.get("required", []), *content.files]
        schema = form
    result: Schema = {"schema": schema}
    if content.example is not None:
        result["example"] = content.example.model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
    return result
