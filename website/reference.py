"""The reference pages, from the CRDs and the OpenAPI documents. Pure: data in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]
# Of what Kubernetes itself defines, only the first level: `kubectl explain` has the rest.
OF_KUBERNETES = ("spec.podTemplate.spec.", "spec.egress[].")
LONGEST_ENUM = 12


# --- custom resources -----------------------------------------------------------------------------


def custom_resource(crd: Schema) -> str:
    """Return the page of a CustomResourceDefinition."""
    spec = crd["spec"]
    names, [version] = spec["names"], spec["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [
        f"# {names['kind']}",
        schema["description"],
        _table(
            ("", ""),
            [
                ("apiVersion", f"`{spec['group']}/{version['name']}`"),
                ("scope", spec["scope"]),
                ("names for kubectl", _codes([names["plural"], *names["shortNames"]])),
                (
                    "field selectors",
                    _codes(
                        field["jsonPath"].lstrip(".")
                        for field in version.get("selectableFields", [])
                    )
                    or "none",
                ),
            ],
        ),
        "`kubectl explain` shows the same descriptions. A field without a type is an object, whose "
        "fields follow.",
    ]
    for part in ("spec", "status"):
        of_part = schema["properties"][part]
        parts += [f"## {part}", of_part.get("description", "")]
        parts += _sections(of_part, f"{part}.")
        parts += _rules(of_part)
    return _page(parts)


def _sections(schema: Schema, prefix: str) -> Iterable[str]:
    """Return a table of the plain fields, then a section for each object with its fields."""
    plain, nested = list[tuple[str, Schema]](), list[tuple[str, Schema]]()
    for name, field in sorted(schema["properties"].items()):
        (nested if len(list(_fields(field, prefix + name))) > 1 else plain).append((name, field))
    rows = (row for name, field in plain for row in _fields(field, prefix + name))
    yield _field_table(rows, prefix)
    for name, field in nested:
        path = prefix + name
        yield f"### {path}"
        yield field.get("description", "")
        yield _field_table(list(_fields(field, path))[1:], path)
        yield from _rules(field)


def _fields(field: Schema, path: str) -> Iterable[tuple[str, Schema, bool]]:
    """Return each field below ``path``, that one first, and whether it has to be set."""
    yield path, field, False
    yield from _below(field, path)


def _below(field: Schema, path: str) -> Iterable[tuple[str, Schema, bool]]:
    items, values = field.get("items", {}), field.get("additionalProperties", {})
    if isinstance(values, Mapping) and "properties" in values:
        field, path = values, f"{path}.KEY"
    elif "properties" in items:
        field, path = items, f"{path}[]"
    for name, child in sorted(field.get("properties", {}).items()):
        inner = f"{path}.{name}"
        yield inner, child, name in field.get("required", [])
        if not inner.startswith(OF_KUBERNETES):
            yield from _below(child, inner)


def _field_table(fields: Iterable[tuple[str, Schema, bool]], prefix: str = "") -> str:
    """Return a table of fields; their paths are shown without ``prefix``."""
    rows = [
        (
            f"`{path.removeprefix(prefix).removeprefix('.')}`",
            _type(field),
            _required(required) + _description(field),
        )
        for path, field, required in fields
    ]
    return _table(("field", "type", "description"), rows) if rows else ""


def _rules(schema: Schema) -> Iterable[str]:
    if messages := _messages(schema):
        yield "Rules that the API server checks:"
        yield "\n".join(f"- {message}" for message in messages)


def _messages(schema: Schema) -> list[str]:
    """Return what the rules of a schema say, as sentences."""
    messages = [rule.get("message", "") for rule in schema.get("x-kubernetes-validations", [])]
    return [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in messages if text]


# --- REST -----------------------------------------------------------------------------------------


def rest(title: str, document: Schema, source: str) -> str:
    """Return the page of an OpenAPI document; ``source`` is the link to the document itself."""
    info = document["info"]
    [security] = document["components"]["securitySchemes"].values()
    parts = [
        f"# {title}",
        info["description"],
        f"The server has this as `GET /openapi.json`; [here]({source}) is the document of this "
        "version, for generators of clients.",
        f"**Authorization**: {security['description']}",
        "Errors are `application/problem+json`, a [Problem](#problem).",
    ]
    by_tag: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            [tag] = operation.get("tags", ["Other"])
            by_tag.setdefault(tag, []).append((method.upper(), path, operation))
    for tag, tagged in by_tag.items():
        parts.append(f"## {tag[0].upper()}{tag[1:]}")
        for method, path, operation in tagged:
            parts += _operation(method, path, operation)
    parts.append("## Schemas")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += _schema(name, schema)
    return _page(parts)


def _operation(method: str, path: str, operation: Schema) -> Iterable[str]:
    yield f"### {operation['summary']} {{ #{operation['operationId'].lower()} }}"
    yield f"`{method} {path}`"
    yield operation.get("description", "")
    yield _authorization(operation["security"])
    if parameters := operation.get("parameters"):
        yield _table(
            ("parameter", "in", "type", "description"),
            [
                (
                    f"`{parameter['name']}`",
                    parameter["in"],
                    _type(parameter["schema"]),
                    _required(parameter["required"] and parameter["in"] != "path")
                    + parameter.get("description", "")
                    + _bounds(parameter["schema"]),
                )
                for parameter in parameters
            ],
        )
    if body := operation.get("requestBody"):
        yield f"Body: {_contents(body['content'])}"
    yield _table(
        ("status", "", "body"),
        [
            (status, answer["description"], _contents(answer.get("content", {})))
            for status, answer in operation["responses"].items()
        ],
    )


def _authorization(security: list[Schema]) -> str:
    scopes = [scope for each in security for scopes in each.values() for scope in scopes]
    if scopes:
        return f"Needs the scope {' or '.join(f'`{scope}`' for scope in scopes)}."
    return "" if security else "Needs no token."


def _contents(contents: Mapping[str, Schema]) -> str:
    return ", ".join(
        f"{_type(content['schema'])} as `{media_type}`"
        for media_type, content in contents.items()
        if media_type != "application/problem+json"
    )


def _schema(name: str, schema: Schema) -> Iterable[str]:
    yield f"### {name}"
    yield schema.get("description", "")
    if "enum" in schema:
        yield f"One of {_codes(schema['enum'])}."
    elif properties := schema.get("properties"):
        yield _field_table(
            (field, child, field in schema.get("required", []))
            for field, child in properties.items()
        )
    else:
        yield _type(schema)


# --- types ----------------------------------------------------------------------------------------


def _type(schema: Schema) -> str:
    """Return the type of a field in a few words, with links to the schemas of the page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in schema:
            types = [_type(each) for each in schema[alternatives] if each != {"type": "null"}]
            return " or ".join(dict.fromkeys(filter(None, types)))
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'objects'}"
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, Mapping) and "properties" not in values:
            return f"map of {_type(values) or 'anything'}"
        return ""
    return str(schema.get("type", ""))


def _required(required: bool) -> str:
    return "**Required.** " if required else ""


def _description(schema: Schema) -> str:
    return f"{schema.get('description', '')}{_bounds(schema)}".strip()


def _bounds(schema: Schema) -> str:
    """Return what a value can be, as sentences."""
    inner = schema.get("items", schema)
    parts = []
    if (values := inner.get("enum")) and len(values) <= LONGEST_ENUM:
        parts.append(f"One of {_codes(values)}.")
    least, most = inner.get("minimum"), inner.get("maximum")
    if least is not None and most is not None:
        parts.append(f"{least} to {most}.")
    elif least is not None:
        parts.append(f"At least {least}.")
    elif most is not None:
        parts.append(f"At most {most}.")
    if "maxItems" in schema:
        parts.append(f"At most {schema['maxItems']} items.")
    parts += _messages(schema)
    return "".join(f" {part}" for part in parts)


# --- Markdown -------------------------------------------------------------------------------------


def _codes(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
