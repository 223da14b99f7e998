"""Which page asks: the daemon's own, or one from elsewhere that the browser has open too."""

from starlette.requests import HTTPConnection


def is_own_page(connection: HTTPConnection) -> bool:
    """Whether the page that asks is the daemon's own; programs that are no browsers send no Origin."""
    origin = connection.headers.get("origin")
    return origin is None or origin == f"http://{connection.headers.get('host', '')}"
