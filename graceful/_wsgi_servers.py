"""How a WSGI server is told to close a connection: the ways; which one fits is in the traits.

The specification forbids apps to send `Connection`. Most servers pass it on and act on it; some
take it for an error, and gunicorn drops it but can be asked through the object of its response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .core.traits import SaysClose, traits_of_wsgi

__all__ = ["announces_close"]

Headers = list[tuple[str, str]]


def _by_header(start_response: object, headers: Headers) -> Headers:
    """Say it whatever the app said about the connection."""
    kept = [(name, value) for name, value in headers if name.lower() != "connection"]
    return [*kept, ("Connection", "close")]


def _by_response(start_response: object, headers: Headers) -> Headers:
    # gunicorn 27.0.1; elsewhere, or behind another middleware, the header is all there is
    force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if force_close is None:
        return _by_header(start_response, headers)
    force_close()
    return headers


def _not_at_all(start_response: object, headers: Headers) -> Headers:
    return headers


_WAYS: Final[Mapping[SaysClose, Callable[[object, Headers], Headers]]] = {
    "header": _by_header,
    "response": _by_response,
    "never": _not_at_all,
}


def announces_close(environ: dict[str, Any], start_response: object, headers: Headers) -> Headers:
    """Have the server close the connection after this response, as it allows.

    Returns the headers to start the response with.
    """
    return _WAYS[_says_close(environ)](start_response, headers)


def _says_close(environ: dict[str, Any]) -> SaysClose:
    # What else is built on wsgiref's handlers (CGI) shows by its class of file wrappers.
    wrapper = getattr(environ.get("wsgi.file_wrapper"), "__module__", "")
    if wrapper == "wsgiref.util":
        return "never"
    return traits_of_wsgi(str(environ.get("SERVER_SOFTWARE", ""))).says_close
