import os

from graceful.integrations import gunicorn as graceful_gunicorn

workers = int(os.environ.get("WORKERS", 4))
worker_class, threads = "gthread", 16
keepalive = 75
max_requests, max_requests_jitter = 1000, 100
graceful_gunicorn.install(globals(), grace_period=40, propagation_delay=6)
