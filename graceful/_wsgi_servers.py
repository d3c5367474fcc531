"""How a WSGI server is told to close a connection: the ways; which one fits is in the traits.

The specification forbids apps to send `Connection`. Most servers pass it on and act on it; some
take it for an error, gunicorn drops it but can be asked through the object of its response, and
waitress takes the client's word for it, which can be put into its mouth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .core.traits import SaysClose, traits_of_wsgi

__all__ = ["announces_close"]

Headers = list[tuple[str, str]]
Environ = dict[str, Any]


def _by_header(environ: Environ, start_response: object, headers: Headers) -> Headers:
    """Say it whatever the app said about the connection."""
    kept = [(name, value) for name, value in headers if name.lower() != "connection"]
    return [*kept, ("Connection", "close")]


def _by_response(environ: Environ, start_response: object, headers: Headers) -> Headers:
    # gunicorn 27.0.1; elsewhere, or behind another middleware, the header is all there is
    force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if force_close is None:
        return _by_header(environ, start_response, headers)
    force_close()
    return headers


def _by_request(environ: Environ, start_response: object, headers: Headers) -> Headers:
    # waitress 3.0: the documented key is a method of the connection, which has its requests
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    for request in getattr(channel, "requests", ())[:1]:
        request.headers["CONNECTION"] = "close"
    return headers


def _not_at_all(environ: Environ, start_response: object, headers: Headers) -> Headers:
    return headers


_WAYS: Final[Mapping[SaysClose, Callable[[Environ, object, Headers], Headers]]] = {
    "header": _by_header,
    "response": _by_response,
    "request": _by_request,
    "never": _not_at_all,
}


def announces_close(environ: Environ, start_response: object, headers: Headers) -> Headers:
    """Have the server close the connection after this response, as it allows.

    Returns the headers to start the response with.
    """
    return _WAYS[_says_close(environ)](environ, start_response, headers)


_BY_WRAPPER: Final[Mapping[str, SaysClose]] = {
    "wsgiref.util": "never",
    "waitress.buffers": "request",
}
"""Module of the class of file wrappers → the way: for what else is built on wsgiref's handlers
(CGI), and for a waitress that has been given another `ident`."""


def _says_close(environ: Environ) -> SaysClose:
    wrapper = getattr(environ.get("wsgi.file_wrapper"), "__module__", "")
    if wrapper in _BY_WRAPPER:
        return _BY_WRAPPER[wrapper]
    return traits_of_wsgi(str(environ.get("SERVER_SOFTWARE", ""))).says_close
