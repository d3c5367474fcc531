FROM python:3.13-slim
ENV GRACEFUL_GRACE_PERIOD 20
# expect-next: shell-swallows-sigterm
ENTRYPOINT python manage.py migrate && gunicorn shop.wsgi
CMD ["ignored"]
