FROM python:3.13-slim
WORKDIR /srv
# expect-next: stop-signal
STOPSIGNAL SIGKILL
# expect-next: shell-swallows-sigterm, uvicorn-no-timeout
CMD uvicorn app:app --host 0.0.0.0 \
    --port 8000
