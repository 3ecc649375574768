"""What the OpenAPI description says beyond what FastAPI reads off a route: bodies and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from desmatch.serve.contracts import MatchRequest, NearestRequest, Problem

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

REFERENCE = "#/components/schemas/{model}"


def problem(status: int, text: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of a refusal."""
    return {status: {"model": Problem, "description": text}}


NOT_READY = problem(503, "Too many wait, or the service is about to stop")
PROBLEMS = {
    **problem(400, "The request cannot be read"),
    **problem(408, "The body did not come in time"),
    **problem(413, "The body is too large"),
    **problem(422, "The JSON is not what is asked for"),
}
"""What becomes of a body that is not as it should be."""


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return what describes a route whose body is the JSON of a model."""
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def describe_requests(app: FastAPI) -> None:
    """Add the models of bodies to the description of an app that has all its routes.

    These read their bodies themselves, within the limits, so that FastAPI knows nothing of them.
    """
    _, found = models_json_schema(
        [(MatchRequest, "validation"), (NearestRequest, "validation")], ref_template=REFERENCE
    )
    app.openapi()["components"]["schemas"].update(found["$defs"])
