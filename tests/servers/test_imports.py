"""Nothing is imported on the way out: it would hold the loop up, and the files may be others."""

from __future__ import annotations

import pytest

from .harness import Launcher, launch, settings
from .launchers import (
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    GUNICORN_UVICORN,
    UVICORN,
    UVICORN_H11,
)
from .launchers_daphne import DAPHNE
from .launchers_granian import GRANIAN
from .launchers_hypercorn import HYPERCORN, HYPERCORN_TRIO
from .launchers_run import RUN_GRANIAN_WSGI, RUN_HYPERCORN, RUN_UVICORN

ASGI = (
    *(UVICORN, UVICORN_H11, RUN_UVICORN, HYPERCORN, HYPERCORN_TRIO, RUN_HYPERCORN, GRANIAN, DAPHNE),
    *(GUNICORN_ASGI, GUNICORN_UVICORN),
)
WSGI = (GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, RUN_GRANIAN_WSGI)

SHORT = settings(propagation_delay=0.3, linger=0.2, stream_window=0.2)


@pytest.mark.parametrize("launcher", [*ASGI, *WSGI], ids=lambda launcher: launcher.name)
def test_nothing_is_imported_on_the_way_out(launcher: Launcher) -> None:
    """From the last request to the clean-up hook, which is the last thing of an app."""
    app = "wsgi_app" if launcher in WSGI else "app"
    with launch(launcher, f"tests.servers.imports_app:{app}", env=SHORT) as server:
        assert server.get("/").body == b"noted\n"
        server.terminate()
        assert server.wait() == 0
        found = server.log.marks("imported:")
        assert found
        assert set(found) == {"imported: "}
