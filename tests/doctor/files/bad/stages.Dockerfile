FROM python:3.12-slim AS base
# expect-next: stop-signal
STOPSIGNAL SIGKILL
FROM base
CMD ["uvicorn", "app:app", "--timeout-graceful-shutdown", "20"]
