"""A Flask app on waitress, which alone is ended by SIGTERM at once, with all that it serves.

Run:  python -m examples.waitress_app 8000
"""

import sys

from flask import Flask

from graceful.integrations.waitress import serve
from graceful.wsgi import GracefulMiddleware

app = Flask(__name__)
app.wsgi_app = GracefulMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/")
def home() -> str:
    """A quick request."""
    return "hello\n"


if __name__ == "__main__":
    serve(app, listen=f"127.0.0.1:{sys.argv[1]}", threads=16)
