"""The interface of `elastic serve` as OpenAPI describes it."""

from typing import Any

from elastic_cnn import __version__


def describe(max_bytes: int, max_photos: int, top: int) -> dict[str, Any]:
    """The description of OpenAPI 3.1 that `GET /openapi.json` answers."""
    photo = {"type": "string", "format": "binary", "maxLength": max_bytes}
    query = [
        _parameter("top", f"classes a photo ({top})", {"type": "integer", "minimum": 1, "maximum": 1000}),
        _parameter("threshold", "of several labels a photo: the least probability (0.5)", {"type": "number"}),
    ]
    predict = {
        "summary": f"What photos show: one as the body, or up to {max_photos} as files of a form",
        "operationId": "predict",
        "parameters": query,
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": photo},
                "image/*": {"schema": photo},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "array", "items": photo, "maxItems": max_photos}},
                    }
                },
            },
        },
        "responses": {
            "200": _response("the answers, in the order of the photos", "Answers"),
            **{status: _response(words, "Error") for status, words in _REFUSALS.items()},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "elastic serve", "version": __version__},
        "paths": {
            "/predict": {"post": predict},
            "/health": {"get": _get("health", "whether the server answers, and how many requests wait", "Health")},
            "/model": {"get": _get("model", "the network, its classes, its input and the limits", "Model")},
        },
        "components": {"schemas": _SCHEMAS},
    }


_REFUSALS = {
    "400": "no photo, or one that came cut short",
    "403": "asked under another name, or from another site's page",
    "408": "the photo took too long to come",
    "413": "too large",
    "415": "the one photo is none, or broken (in a form, its answer says so)",
    "422": "`top` or `threshold` is out of range",
    "503": "too many requests wait; Retry-After says when to come again",
}
_NAME, _COUNT, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_SCHEMAS: dict[str, Any] = {
    "Error": _object(error=_NAME),
    "Health": _object(status=_NAME, network=_NAME, waiting=_COUNT),
    "Model": _object(
        network=_NAME,
        task=_NAME,
        classes={"type": "array", "items": _NAME},
        input=_object(height=_COUNT, width=_COUNT),
        precision=_NAME,
        limits=_object(bytes=_COUNT, photos=_COUNT),
    ),
    "Answer": _object(
        width=_COUNT,
        height=_COUNT,
        classes={"type": "array", "items": _object(**{"class": _NAME}, probability=_NUMBER)},
        labels={"type": "array", "items": _NAME},
        error=_NAME,
    ),
    "Answers": _object(
        network=_NAME,
        seconds=_NUMBER,
        results={"type": "array", "items": {"$ref": "#/components/schemas/Answer"}},
    ),
}


def _parameter(name: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": words, "schema": schema}


def _response(words: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": words, "content": content}


def _get(name: str, words: str, schema: str) -> dict[str, Any]:
    return {"summary": words, "operationId": name, "responses": {"200": _response(words, schema)}}
