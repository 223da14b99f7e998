"""Which page asks: the daemon's own, or one from elsewhere that the browser has open too."""

import asyncio
import mimetypes
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

import timbred
from timbred.errors import BadAudio, BadRequest, TimbredError
from timbred.filenames import printable
from timbred.storage.library import Library, StoredTake
from timbred.web import PAGE, assets


def is_own_page(connection: HTTPConnection) -> bool:
    """Whether the page that asks is the daemon's own; programs that are no browsers send no Origin."""
    origin = connection.headers.get("origin")
    return origin is None or origin == f"http://{connection.headers.get('host', '')}"


TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".aiff": "audio/aiff", ".ogg": "audio/ogg"}
"""What the kinds of files that timbred writes are called; the system's own table knows some by other names."""

FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # whatever lies in the folder, it is no page of the daemon's and runs no script as one
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""For what is never changed: a take's name is used once."""

ASK_AGAIN = {"Cache-Control": "no-cache"}
"""For what may change: the copy that a browser has is used only after asking."""


def file_of(path: Path, *, keep: bool, save: bool = False) -> FileResponse:
    """A file, whole or the ranges that were asked for.

    Args:
        path: must be a file.
        keep: it never changes, so that it needs to be fetched once only.
        save: the browser shall store it under its name instead of showing it.
    """
    kind = TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        content_disposition_type="attachment" if save else "inline",
        headers={**FILE_HEADERS, **(FOREVER if keep else ASK_AGAIN)},
    )


MOST_TAKES = 200
"""Takes that one answer may hold."""

PAGE_HEADERS = {
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


class WebApi:
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
        headers = {**PAGE_HEADERS, "ETag": asset.mark}
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
