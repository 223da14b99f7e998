"""What the panel's page needs over HTTP: its own files, the stored takes page by page, their sounds and their stars.

    GET    /panel/NAME                       a file of the page
    GET    /panel/session                    version, which run of the daemon this is, the takes folder
    GET    /panel/takes?search&starred&before&limit&like
                                             {"takes": [...], "total": n, "more": true or false}
    GET    /panel/takes/ID                   one take
    PUT    /panel/takes/ID/star              mark it; DELETE takes the mark away
    GET    /panel/sounds/ID/NAME             its file; with ?save to store it

All else is asked over `/ws`. What can't be done is answered by an object with `code` and `message`, as in `fail`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import timbred
from timbred.errors import BadAudio, BadRequest, TimbredError
from timbred.filenames import printable
from timbred.library.takes import Library, StoredTake
from timbred.panel import PAGE, assets
from timbred.transports.origin import is_own_page
from timbred.transports.sounds import file_of

MOST_TAKES = 200
"""Takes that one answer may hold."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_Answer = Callable[[Request], Awaitable[Response]]


class Panel:
    """The page and its questions. Without a library there are no takes to be asked for."""

    def __init__(self, takes: Path, library: Library | None) -> None:
        self._takes = takes
        self._library = library
        self._assets = assets()
        self._run = secrets.token_hex(8)

    def routes(self) -> list[Route]:
        """Everything under `/panel`."""
        return [
            Route("/panel/session", self._session),
            Route("/panel/takes", _told(self._list)),
            Route("/panel/takes/{id}", _told(self._one)),
            Route("/panel/takes/{id}/star", _told(self._star), methods=["PUT", "DELETE"]),
            Route("/panel/sounds/{id}/{name}", _told(self._sound)),
            Route("/panel/{name}", self._asset),
        ]

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return self._served(PAGE, request)

    async def _asset(self, request: Request) -> Response:
        return self._served(request.path_params["name"], request)

    def _served(self, name: str, request: Request) -> Response:
        asset = self._assets.get(name)
        if asset is None:
            return _json({"code": BadRequest.code, "message": f"the panel has no file {name[:80]!r}"}, 404)
        headers = {**HEADERS, "ETag": asset.mark}
        if asset.mark in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers, media_type=asset.type)

    async def _session(self, request: Request) -> Response:
        _ = request
        return _json({"version": timbred.__version__, "run": self._run, "takes_folder": printable(str(self._takes))})

    async def _list(self, request: Request) -> Response:
        library, asked = self._open(), request.query_params
        words, like, before = asked.get("search", ""), asked.get("like"), asked.get("before")
        starred, limit = asked.get("starred", "0") not in ("", "0"), _limit(asked.get("limit", "50"))

        def find() -> dict[str, Any]:
            if like:
                found = library.search(words, limit, like)
                return {"takes": [_as_object(take) for take in found], "total": len(found), "more": False}
            found = library.browse(words, limit + 1, before, starred)
            total = library.count(words, starred)
            return {"takes": [_as_object(take) for take in found[:limit]], "total": total, "more": len(found) > limit}

        return _json(await asyncio.to_thread(find))

    async def _one(self, request: Request) -> Response:
        take = await self._stored(request)
        return _json(await asyncio.to_thread(_as_object, take))

    async def _star(self, request: Request) -> Response:
        if not is_own_page(request):
            return _json({"code": BadRequest.code, "message": "only the daemon's own page may set stars"}, 403)
        library, take, on = self._open(), request.path_params["id"], request.method == "PUT"
        if not await asyncio.to_thread(library.star, take, on):
            raise _Unknown(take)
        return _json({"take_id": take, "starred": on})

    async def _sound(self, request: Request) -> Response:
        take = await self._stored(request)
        if take.path is None or request.path_params["name"] != take.path.name:
            raise _Unknown(request.path_params["name"])
        if await asyncio.to_thread(lambda: take.missing):
            raise BadAudio(f"the file {take.path} is gone; make it again with vary")
        return file_of(take.path, keep=True, save="save" in request.query_params)

    async def _stored(self, request: Request) -> StoredTake:
        named = request.path_params["id"]
        found = await asyncio.to_thread(self._open().get, named)
        if found is None:
            raise _Unknown(named)
        return found

    def _open(self) -> Library:
        if self._library is None:
            raise BadRequest("this daemon keeps no library")
        return self._library


class _Unknown(BadRequest):
    """There is no such take."""

    def __init__(self, named: str) -> None:
        super().__init__(f"there is no take {named[:80]!r}; it may be another daemon's")


def _told(answer: _Answer) -> _Answer:
    """What can't be done is answered with its code and message."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except _Unknown as error:
            return _json({"code": error.code, "message": error.message}, 404)
        except BadAudio as error:
            return _json({"code": error.code, "message": error.message}, 410)
        except BadRequest as error:
            return _json({"code": error.code, "message": error.message}, 400)
        except TimbredError as error:
            return _json({"code": error.code, "message": error.message}, 500)

    return answered


def _limit(asked: str) -> int:
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= MOST_TAKES):
        raise BadRequest(f"limit: got {asked[:40]!r}, allowed is a whole number from 1 to {MOST_TAKES}")
    return int(asked)


def _as_object(take: StoredTake) -> dict[str, Any]:
    """A take as the page sees it; looks whether its file is there."""
    name = take.path.name if take.path else ""
    return {
        "take_id": take.take_id,
        "path": str(take.path) if take.path else "",
        "name": name,
        "url": f"/panel/sounds/{take.take_id}/{quote(name)}" if name else "",
        "missing": take.missing,
        "created": take.created,
        "prompt": take.prompt,
        "model": take.model,
        "seed": take.seed,
        "seconds": take.seconds,
        "rate": take.rate,
        "channels": take.channels,
        "score": take.score,
        "index": take.index,
        "request_id": take.request_id,
        "starred": take.starred,
        "recipe": take.recipe,
    }


def _json(content: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(msgspec.json.encode(content), status, headers, "application/json")
