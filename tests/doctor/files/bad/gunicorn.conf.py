from graceful.integrations.gunicorn import install

workers = 4
timeout = 10  # expect: gunicorn-worker
graceful_timeout = 15  # expect: server-timeout
max_requests = 1000  # expect: gunicorn-worker
install(globals(), grace_period=60, propagation_delay=5)
