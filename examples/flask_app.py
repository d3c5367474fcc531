"""A Flask app with every kind of request that a rolling restart can lose.

Run:  gunicorn -c python:graceful.integrations.gunicorn_conf --threads 32 examples.flask_app:app
"""

import itertools
import json
import time
from collections.abc import Iterator

from flask import Flask, Response, request

from graceful.wsgi import GracefulMiddleware

app = Flask(__name__)
app.wsgi_app = GracefulMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/")
def home() -> str:
    """A quick request."""
    return "hello\n"


@app.get("/slow")
def slow() -> str:
    """A request that takes as long as it is told to."""
    time.sleep(float(request.args.get("seconds", "1")))
    return "done\n"


@app.post("/echo")
def echo() -> Response:
    """A request that must not run twice."""
    return Response(request.get_data(), mimetype="application/octet-stream")


@app.get("/events")
def events() -> Response:
    """Server-sent events, numbered, for ever."""

    def numbers() -> Iterator[str]:
        for n in itertools.count(1):
            yield f"id: {n}\ndata: {json.dumps({'n': n})}\n\n"
            time.sleep(0.5)

    return Response(numbers(), mimetype="text/event-stream")
