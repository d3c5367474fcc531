FROM --platform=$BUILDPLATFORM python:3.12-slim AS Base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV GRACEFUL_GRACE_PERIOD=30
FROM base AS build
CMD /bin/sh -c "uvicorn wrong:stage"
FROM base
CMD uvicorn app:app
