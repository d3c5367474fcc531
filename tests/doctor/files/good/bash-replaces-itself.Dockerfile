FROM python:3.13-slim
ENV GRACEFUL_GRACE_PERIOD=20
ENTRYPOINT ["bash", "-lc", "source env.sh && uvicorn app:app"]
