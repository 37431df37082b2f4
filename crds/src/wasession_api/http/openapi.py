"""Build an OpenAPI 3.1 document from a table of operations on pydantic models.

Pure. The session pod and the gateway build ``/openapi.json`` from the same table as their routes.
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
References = Mapping[type[BaseModel], Schema]


class Nothing(Model):
    """No parameters, or an empty object."""


@dataclass(frozen=True)
class Content:
    """A body of a request or response.

    ``schema`` is a pydantic model or a plain schema. ``files`` are the names of a form's file
    fields. The example is an instance of the model, and so always valid.
    """

    schema: type[BaseModel] | Schema
    media_type: str = JSON
    files: tuple[str, ...] = ()
    example: BaseModel | None = None


@dataclass(frozen=True)
class Answer:
    """A successful response. ``headers`` are descriptions by name."""

    description: str
    contents: tuple[Content, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    ``query``, ``headers`` and ``path_parameters`` are models with one field per parameter: requests
    are validated with the models that the document shows. ``problems`` are descriptions of error
    responses by status. ``secured`` operations require the bearer token, with one of ``scopes`` if
    there are any; names in one of them, separated by spaces, are required together.
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
    scopes: tuple[str, ...] = ()


def document(
    title: str,
    version: str,
    description: str,
    operations: Iterable[Operation],
    security: str,
    also: Iterable[type[BaseModel]] = (),
) -> Schema:
    """Return the document.

    ``security`` describes the bearer token; ``also`` are further models to include.
    """
    operations = list(operations)
    models: set[type[BaseModel]] = {Problem, *also}
    for operation in operations:
        models.update(_models(operation))
    schemas, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    references: References = {model: schema for (model, _), schema in schemas.items()}  # type: ignore[misc]
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


def _operation(operation: Operation, references: References) -> Schema:
    result: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": _security(operation),
        "responses": {
            str(status): _answer(answer, references)
            for status, answer in sorted(operation.answers.items())
        }
        | {
            str(status): _problem(status, description, references)
            for status, description in sorted(_problems(operation).items())
        },
    }
    if operation.description:
        result["description"] = operation.description
    if operation.tag:
        result["tags"] = [operation.tag]
    parameters = [
        *_parameters("path", operation.path_parameters),
        *_parameters("query", operation.query),
        *_parameters("header", operation.headers),
    ]
    if parameters:
        result["parameters"] = parameters
    if operation.bodies:
        result["requestBody"] = {
            "required": True,
            "content": _contents(operation.bodies, references),
        }
    return result


def _security(operation: Operation) -> list[Schema]:
    """Return the alternatives: the bearer token with all names of any of the scopes."""
    if not operation.secured:
        return []
    return [{SECURITY: scope.split()} for scope in operation.scopes] or [{SECURITY: []}]


def _parameters(location: str, model: type[BaseModel]) -> Iterable[Schema]:
    schema = model.model_json_schema(by_alias=True)
    for name, field_schema in schema.get("properties", {}).items():
        field_schema = _inlined(field_schema, schema.get("$defs", {}))
        field_schema.pop("title", None)
        parameter = {
            "name": name,
            "in": location,
            "required": location == "path" or name in schema.get("required", []),
        }
        if description := field_schema.pop("description", None):
            parameter["description"] = description
        if field_schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        yield parameter | {"schema": field_schema}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Resolve references and remove null: an absent parameter is left out, not null."""
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


def _answer(answer: Answer, references: References) -> Schema:
    result: Schema = {"description": answer.description}
    if answer.contents:
        result["content"] = _contents(answer.contents, references)
    if answer.headers:
        result["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in answer.headers.items()
        }
    return result


def _problems(operation: Operation) -> Mapping[int, str]:
    return ({401: "The token is missing or wrong."} if operation.secured else {}) | dict(
        operation.problems
    )


def _problem(status: int, description: str, references: References) -> Schema:
    example = Problem(title=HTTPStatus(status).phrase, status=status, detail=description)
    content = Content(Problem, MEDIA_TYPE, example=example)
    return _answer(Answer(description, (content,)), references)


def _contents(contents: Iterable[Content], references: References) -> Schema:
    return {content.media_type: _content(content, references) for content in contents}


def _content(content: Content, references: References) -> Schema:
    schema = content.schema if isinstance(content.schema, dict) else references[content.schema]
    if content.files:
        schema = _form(content)
    result: Schema = {"schema": schema}
    if content.example is not None:
        result["example"] = content.example.model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
    return result


def _form(content: Content) -> Schema:
    """Return the schema of a form with its file fields."""
    schema = (
        content.schema
        if isinstance(content.schema, dict)
        else content.schema.model_json_schema(by_alias=True)
    )
    form: Schema = _inlined(schema, schema.get("$defs", {}))
    form.pop("$defs", None)
    form["properties"] |= dict.fromkeys(content.files, BINARY)
    form["required"] = [*form.get("required", []), *content.files]
    return form
