FROM python:3.13-slim
# expect-next: uvicorn-no-timeout
CMD ["uvicorn", "b:b"]
