FROM python:3.13-slim
CMD ["uvicorn", "a:a", "--timeout-graceful-shutdown", "10"]
