"""The panel over HTTP: its page with styles and scripts, the stored takes, their stars and their audio."""

import asyncio
import hashlib
import mimetypes
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
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

PAGE_NAME = "index.html"

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types of the page's files by extension."""


@dataclass(frozen=True)
class Asset:
    """One file of the page. `mark` is its HTTP ETag, which changes with the content."""

    content: bytes
    type: str
    mark: str


def assets() -> dict[str, Asset]:
    """Return every file of the page by its name."""
    assets_by_name: dict[str, Asset] = {}
    for file in (files("timbred") / "web").iterdir():
        extension = "." + file.name.rpartition(".")[2]
        if extension in CONTENT_TYPES:
            content = file.read_bytes()
            assets_by_name[file.name] = Asset(
                content, CONTENT_TYPES[extension], f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            )
    return assets_by_name


def is_own_page(connection: HTTPConnection) -> bool:
    """Tell if a request comes from the daemon's own page, or from another program than a browser (no Origin)."""
    origin = connection.headers.get("origin")
    return origin is None or origin == f"http://{connection.headers.get('host', '')}"


MEDIA_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".aiff": "audio/aiff", ".ogg": "audio/ogg"}
"""Media types of the files that timbred writes; some systems' tables have other names for them."""

FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # a file in the takes folder must not run scripts as a page of the daemon
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}

IMMUTABLE_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Headers of files that never change: a take's name is used once."""

REVALIDATED_HEADERS = {"Cache-Control": "no-cache"}
"""Headers of files that may change: the browser must revalidate its copy."""


def file_of(path: Path, *, keep: bool, save: bool = False) -> FileResponse:
    """Return the response with a file, or with the requested ranges of it.

    Args:
        path: An existing file.
        keep: True if it never changes, so that browsers needn't fetch it again.
        save: True if the browser should store it under its name instead of showing it.
    """
    kind = MEDIA_TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        content_disposition_type="attachment" if save else "inline",
        headers={**FILE_HEADERS, **(IMMUTABLE_HEADERS if keep else REVALIDATED_HEADERS)},
    )


MAX_LISTED_TAKES = 200
"""Takes in one answer."""

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
    """The panel's page and its requests. Without a library those for takes are refused."""

    def __init__(self, takes: Path, library: Library | None) -> None:
        self._takes = takes
        self._library = library
        self._assets = assets()
        self._run = secrets.token_hex(8)

    def routes(self) -> list[Route]:
        """Return the routes below `/panel`."""
        return [
            Route("/panel/session", self._session),
            Route("/panel/takes", _answer_errors(self._list)),
            Route("/panel/takes/{id}", _answer_errors(self._get)),
            Route("/panel/takes/{id}/star", _answer_errors(self._star), methods=["PUT", "DELETE"]),
            Route("/panel/sounds/{id}/{name}", _answer_errors(self._sound)),
            Route("/panel/{name}", self._asset),
        ]

    async def page(self, request: Request) -> Response:
        """Serve the page."""
        return self._serve_asset(PAGE_NAME, request)

    async def _asset(self, request: Request) -> Response:
        return self._serve_asset(request.path_params["name"], request)

    def _serve_asset(self, name: str, request: Request) -> Response:
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
        library, query = self._open(), request.query_params
        words, like, before = query.get("search", ""), query.get("like"), query.get("before")
        starred, limit = query.get("starred", "0") not in ("", "0"), _limit(query.get("limit", "50"))

        def find() -> dict[str, Any]:
            if like:
                similar = library.search(words, limit, like)
                return {"takes": [_as_object(take) for take in similar], "total": len(similar), "more": False}
            listed = library.browse(words, limit + 1, before, starred)
            total = library.count(words, starred)
            return {"takes": [_as_object(take) for take in listed[:limit]], "total": total, "more": len(listed) > limit}

        return _json(await asyncio.to_thread(find))

    async def _get(self, request: Request) -> Response:
        take = await self._find_take(request)
        return _json(await asyncio.to_thread(_as_object, take))

    async def _star(self, request: Request) -> Response:
        if not is_own_page(request):
            return _json({"code": BadRequest.code, "message": "only the daemon's own page may set stars"}, 403)
        library, take, on = self._open(), request.path_params["id"], request.method == "PUT"
        if not await asyncio.to_thread(library.star, take, on):
            raise _UnknownTake(take)
        return _json({"take_id": take, "starred": on})

    async def _sound(self, request: Request) -> Response:
        take = await self._find_take(request)
        if take.path is None or request.path_params["name"] != take.path.name:
            raise _UnknownTake(request.path_params["name"])
        if await asyncio.to_thread(lambda: take.missing):
            raise BadAudio(f"the file {take.path} is missing; render it again with vary")
        return file_of(take.path, keep=True, save="save" in request.query_params)

    async def _find_take(self, request: Request) -> StoredTake:
        take_id = request.path_params["id"]
        take = await asyncio.to_thread(self._open().get, take_id)
        if take is None:
            raise _UnknownTake(take_id)
        return take

    def _open(self) -> Library:
        if self._library is None:
            raise BadRequest("this daemon keeps no library")
        return self._library


class _UnknownTake(BadRequest):
    """There is no such take."""

    def __init__(self, take_id: str) -> None:
        super().__init__(f"there is no take {take_id[:80]!r}; another daemon may have it")


def _answer_errors(answer: _Answer) -> _Answer:
    """Wrap a handler so that errors are answered with their code and message."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except _UnknownTake as error:
            return _json({"code": error.code, "message": error.message}, 404)
        except BadAudio as error:
            return _json({"code": error.code, "message": error.message}, 410)
        except BadRequest as error:
            return _json({"code": error.code, "message": error.message}, 400)
        except TimbredError as error:
            return _json({"code": error.code, "message": error.message}, 500)

    return answered


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_LISTED_TAKES):
        raise BadRequest(f"limit: got {text[:40]!r}, allowed is a whole number from 1 to {MAX_LISTED_TAKES}")
    return int(text)


def _as_object(take: StoredTake) -> dict[str, Any]:
    """Return a take as the page gets it; checks if its file exists."""
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
