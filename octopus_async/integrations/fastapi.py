"""FastAPI: one call gives an application its manager, its Daos, its answers to errors, and its health.

::

    app = FastAPI()
    install(app, lambda: DaoManager(["sqlite:///books.db", "memory://"], journal="journal"))
    Books = Annotated[Dao[Book], dao_of(Book)]

    @app.get("/books/{book_id}")
    async def read(book_id: UUID, books: Books) -> Book:
        return await books.get_one(book_id)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast, overload

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from octopus_async.dao import Dao
from octopus_async.errors import ConfigurationError, ManagerClosed, OctopusError
from octopus_async.integrations.health import health_of
from octopus_async.integrations.journalled import Journalled, header_of, status_of
from octopus_async.integrations.problem import ANSWERED, MEDIA_TYPE, problem_of
from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel
from octopus_async.strategies.receipt import Receipt

__all__ = ["Acknowledge", "Journalled", "acknowledgement", "dao_of", "install", "manager_of"]

M = TypeVar("M", bound=KeyedModel)
D = TypeVar("D", bound=Dao[Any])

_MANAGER = "octopus"
_POLICY = "octopus_journalled"


def install(
    app: FastAPI,
    make_manager: Callable[[], DaoManager],
    *,
    journalled: Journalled = Journalled.SILENT,
    live: str | None = "/healthz",
    ready: str | None = "/readyz",
) -> None:
    """Open a manager when the application starts and close it when it ends, around the lifespan it has.

    Errors of this library become problem details (RFC 9457): 404, 409, 422, and 503 with Retry-After.

    Parameters:
        app: the application.
        make_manager: makes a manager, not yet open. It is called at each start, as a manager opens once.
        journalled: what `acknowledgement` lets a client see of a write that the journal holds alone.
        live: the path that says whether the process answers; it does no I/O. None for no such path.
        ready: the path that says whether the service can serve, and each backend's state: 200 while it
            serves, degraded or not, else 503. None for no such path.

    Raises:
        ConfigurationError: it was installed already.
    """
    if hasattr(app.state, _POLICY):
        msg = "octopus_async is installed in this application already"
        raise ConfigurationError(msg)
    setattr(app.state, _POLICY, journalled)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
        async with make_manager() as manager:
            setattr(app.state, _MANAGER, manager)
            try:
                async with inner(app) as state:
                    yield cast("Mapping[str, Any]", state)  # None where it gives no state
            finally:
                delattr(app.state, _MANAGER)

    app.router.lifespan_context = lifespan
    for error in ANSWERED:
        app.add_exception_handler(error, _answer)
    if live is not None:
        app.add_api_route(live, _live, include_in_schema=False)
    if ready is not None:
        app.add_api_route(ready, _ready, include_in_schema=False)


def manager_of(connection: HTTPConnection) -> DaoManager:
    """The application's manager, as a dependency or with a request or web socket at hand.

    Raises:
        ManagerClosed: the application's lifespan has not begun, or is over.
    """
    manager = getattr(connection.app.state, _MANAGER, None)
    if not isinstance(manager, DaoManager):
        msg = "the application has no open manager: call install(), and run it with its lifespan"
        raise ManagerClosed(msg)
    return manager


@overload
def dao_of(kind: type[D]) -> D: ...
@overload
def dao_of(kind: type[M]) -> Dao[M]: ...
def dao_of(kind: Any) -> Any:
    """The Dao of a model class, or of a Dao subclass, for ``Annotated`` or as a parameter's default."""

    async def dao(connection: HTTPConnection) -> Dao[Any]:
        made: Dao[Any] = manager_of(connection).dao(kind)
        return made

    return Depends(dao)


class Acknowledge:
    """Takes the receipts of a request's writes, and says in the answer what the journal holds alone."""

    def __init__(self, response: Response, policy: Journalled) -> None:
        self._response = response
        self._policy = policy

    def __call__(self, receipt: Receipt) -> Receipt:
        """Note one receipt; gives it back."""
        self._response.headers.update(header_of(receipt, self._policy))
        status = status_of(receipt, self._policy)
        if status is not None:
            self._response.status_code = status
        return receipt


async def acknowledgement(request: Request, response: Response) -> Acknowledge:
    """A dependency: call it with each receipt whose answer may have to say that the journal holds it."""
    return Acknowledge(response, getattr(request.app.state, _POLICY))


async def _answer(_: Request, error: Exception) -> Response:
    assert isinstance(error, OctopusError)  # noqa: S101 - installed for these alone
    problem = problem_of(error)
    return Response(problem.body, problem.status, problem.headers, MEDIA_TYPE)


async def _live() -> JSONResponse:
    return JSONResponse({"status": "alive"})


async def _ready(connection: HTTPConnection) -> JSONResponse:
    health = health_of(manager_of(connection))
    return JSONResponse(health.as_json(), health.status)
