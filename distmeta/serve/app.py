"""The addresses of the service: a FastAPI application behind a `Guard`. It computes nothing itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from distmeta import __version__
from distmeta.protocols import Codec
from distmeta.serve import forms, pages
from distmeta.serve.guard import App, Guard, content_of, headers_of
from distmeta.serve.limits import Limits, Refusal, Refused
from distmeta.serve.metrics import CONTENT_TYPE, Metrics
from distmeta.serve.service import Replicas, Service
from distmeta.serve.store import Store

ABOUT = """Learns a task from a handful of examples and predicts. Make a task with `POST /tasks`; ask it with
`POST /tasks/{id}/predict`. An error is `{"error": {"where", "found", "remedy"}}`."""
TOO_MANY = {429: "Too many requests, or too many at once. `Retry-After` says when to try again."}
PROBLEMS = {
    400: "The body is not JSON in UTF-8.",
    401: "The token is missing or wrong.",
    404: "There is no such task.",
    409: "The service holds as many tasks as it may.",
    413: "The body is too long.",
    415: "The body is not declared as JSON.",
    422: "A field cannot be used.",
    503: "No replica answers; try again.",
}


KIND = re.compile(r"(constrained-)?str$|list\[")  # which of the kinds of a value was tried
Id = Annotated[str, Path(alias="id", description="The id that POST /tasks gave.")]


def build_app(
    replicas: Replicas,
    store: Store,
    codecs: Mapping[str, Codec],
    limits: Limits,
    token: str | None = None,
    hosts: Collection[str] | None = None,
) -> App:
    """The service as an ASGI application. Arguments are those of `Service` and `Guard`."""
    metrics = Metrics()
    service = Service(replicas, store, limits, metrics)
    # Its own pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="distmeta", version=__version__, description=ABOUT, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    bodies = forms.make_forms(codecs, limits)
    _add_tasks(app, service, bodies)
    _add_pages(app, service, metrics)
    _add_errors(app)
    _declare_token(app, token is not None)
    return Guard(app, limits, token, hosts, metrics)


def _add_tasks(app: FastAPI, service: Service, bodies: forms.Forms) -> None:
    async def create(body: Any, response: Response) -> Any:
        return await service.create(body, response)

    async def predict(task: Id, body: Any) -> Any:
        return await service.predict(task, body)

    async def grow(task: Id, body: Any) -> Any:
        return await service.grow(task, body)

    def page(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str, Query(max_length=64, description="The field next of the page before.")] = "",
    ) -> Any:
        return service.page(limit, after)

    def about(task: Id) -> Any:
        return service.about(task)

    def delete(task: Id) -> None:
        service.delete(task)

    about_task, body = forms.TaskAbout, (400, 413, 415, 422, 503)
    routes: list[tuple[str, str, Callable[..., Any], Any, Any, int, tuple[int, ...]]] = [
        ("POST", "/tasks", create, bodies.new_task, about_task, 201, (*body, 409)),
        ("GET", "/tasks", page, None, forms.TaskPage, 200, (422,)),
        ("GET", "/tasks/{id}", about, None, about_task, 200, (404,)),
        ("POST", "/tasks/{id}/predict", predict, bodies.query, forms.Predictions, 200, (*body, 404)),
        ("POST", "/tasks/{id}/examples", grow, bodies.more, about_task, 200, (*body, 404)),
        ("DELETE", "/tasks/{id}", delete, None, None, 204, (404,)),
    ]
    for method, path, function, given, result, status, problems in routes:
        if given is not None:
            function.__annotations__["body"] = given
        text = getattr(Service, function.__name__).__doc__
        app.add_api_route(
            path,
            function,
            methods=[method],
            status_code=status,
            response_model=result,
            summary=text.split(".")[0],
            description=text,
            responses=_problems(*problems),
        )


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = {status: PROBLEMS[status] for status in (*statuses, 401)} | TOO_MANY
    return {status: {"model": forms.ProblemOut, "description": text} for status, text in sorted(described.items())}


def _add_pages(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health", response_model=forms.Health, responses={503: {"model": forms.Health}})
    def health() -> Any:
        """Whether the service answers: 503 while no replica runs."""
        return service.health()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **_problems()})
    def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> Response:
        return HTMLResponse(pages.PAGE, headers={"content-security-policy": pages.POLICY})

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(pages.documentation(app.openapi()), headers={"content-security-policy": pages.POLICY})


def _declare_token(app: FastAPI, needed: bool) -> None:
    """Says in OpenAPI that requests need a token."""
    made = app.openapi

    def with_token() -> dict[str, Any]:
        schema = made()
        if needed:
            schema.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
        return schema

    app.openapi = with_token  # type: ignore[method-assign]


def _add_errors(app: FastAPI) -> None:
    async def refused(_: Request, error: Any) -> Response:
        return _response(error)

    async def invalid(_: Request, error: Any) -> Response:
        first = error.errors()[0]
        where = _place(first["loc"])
        if first["type"] == "json_invalid":
            found = f"{first['ctx']['error']} (character {first['loc'][-1]})"
            return _response(Refused(Refusal(400, "body", f"not valid JSON: {found}", "send a JSON object")))
        return _response(Refused(Refusal(422, where, first["msg"], "see /docs for what a request holds")))

    async def other(_: Request, error: Any) -> Response:
        if error.status_code == 400:  # what JSON allows and Python does not
            refusal = Refusal(400, "body", "nested too deeply, or a number has too many digits", "send simpler JSON")
        else:
            refusal = Refusal(error.status_code, "request", str(error.detail), "see /docs for the addresses")
        response = _response(Refused(refusal))
        response.headers.update(error.headers or {})
        return response

    async def failed(_: Request, error: Any) -> Response:
        remedy = "see what the service printed, and tell its operator"
        return _response(Refused(Refusal(500, "service", type(error).__name__, remedy)))

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)
    app.add_exception_handler(Exception, failed)


def _response(error: Refused) -> Response:
    return Response(content_of(error.refusal), error.refusal.status, headers_of(error))


def _place(location: Collection[Any]) -> str:
    """A place in a body, such as ``examples[3].text``."""
    parts = [part for part in location if part not in ("body", "query", "path") and not KIND.match(str(part))]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{str(p)[:64]}" for p in parts).lstrip(".") or "body"
