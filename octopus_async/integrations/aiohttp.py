"""aiohttp: one call gives an application its manager, its Daos, its answers to errors, and its health.

::

    app = web.Application()
    install(app, lambda: DaoManager(["sqlite:///books.db", "memory://"], journal="journal"))

    async def read(request: web.Request) -> web.Response:
        book = await dao_of(request, Book).get_one(request.match_info["book_id"])
        return web.json_response(text=book.model_dump_json())
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, overload

from aiohttp import web

from octopus_async.dao import Dao
from octopus_async.errors import ManagerClosed
from octopus_async.integrations.health import health_of
from octopus_async.integrations.journalled import Journalled, header_of, status_of
from octopus_async.integrations.problem import ANSWERED, MEDIA_TYPE, problem_of
from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel
from octopus_async.strategies.receipt import Receipt

__all__ = ["Journalled", "acknowledge", "dao_of", "install", "manager_of"]

M = TypeVar("M", bound=KeyedModel)
D = TypeVar("D", bound=Dao[Any])

_MANAGER = web.AppKey("octopus_manager", DaoManager)
_POLICY = web.AppKey("octopus_journalled", Journalled)


def install(
    app: web.Application,
    make_manager: Callable[[], DaoManager],
    *,
    journalled: Journalled = Journalled.SILENT,
    live: str | None = "/healthz",
    ready: str | None = "/readyz",
) -> None:
    """Open a manager when the application starts, and close it when it ends.

    Errors of this library become problem details (RFC 9457): 404, 409, 422, and 503 with Retry-After.

    Parameters:
        app: the application.
        make_manager: makes a manager, not yet open; called once at the application's start.
        journalled: what `acknowledge` lets a client see of a write that the journal holds alone.
        live: the path that says whether the process answers; it does no I/O. None for no such path.
        ready: the path that says whether the service can serve, and each backend's state: 200 while it
            serves, degraded or not, else 503. None for no such path.
    """

    async def lifespan(app: web.Application) -> AsyncIterator[None]:
        async with make_manager() as manager:
            app[_MANAGER] = manager
            yield

    app[_POLICY] = journalled
    app.cleanup_ctx.insert(0, lifespan)  # the first to open and the last to close: others may use the manager
    app.middlewares.insert(0, _answering)
    if live is not None:
        app.router.add_get(live, _live)
    if ready is not None:
        app.router.add_get(ready, _ready)


def manager_of(request: web.Request) -> DaoManager:
    """The application's manager; in a nested application too. Raises `ManagerClosed` without one."""
    manager = request.config_dict.get(_MANAGER)
    if manager is None:
        msg = "the application has no open manager: call install(), and run it"
        raise ManagerClosed(msg)
    return manager


@overload
def dao_of(request: web.Request, kind: type[D]) -> D: ...
@overload
def dao_of(request: web.Request, kind: type[M]) -> Dao[M]: ...
def dao_of(request: web.Request, kind: Any) -> Dao[Any]:
    """The Dao of a model class, or of a Dao subclass."""
    dao: Dao[Any] = manager_of(request).dao(kind)
    return dao


def acknowledge(request: web.Request, receipt: Receipt, response: web.Response) -> web.Response:
    """Say in the answer to a write if the journal holds it alone, as ``journalled`` of `install` wants it."""
    policy = request.config_dict[_POLICY]
    response.headers.update(header_of(receipt, policy))
    status = status_of(receipt, policy)
    if status is not None:
        response.set_status(status)
    return response


@web.middleware
async def _answering(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ANSWERED as error:
        problem = problem_of(error)
        return web.Response(
            body=problem.body, status=problem.status, headers=problem.headers, content_type=MEDIA_TYPE
        )


async def _live(_: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})


async def _ready(request: web.Request) -> web.Response:
    health = health_of(manager_of(request))
    return web.json_response(health.as_json(), status=health.status)
