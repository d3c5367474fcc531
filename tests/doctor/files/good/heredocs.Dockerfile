FROM python:3.12-slim
RUN <<EOF
psql -c "SELECT 1
FROM users"
EOF
COPY <<-"SCRIPT" /usr/local/bin/start
	CMD uvicorn inside:heredoc
	STOPSIGNAL SIGKILL
	SCRIPT
ENV GRACEFUL_GRACE_PERIOD=30
CMD ["uvicorn", "app:app"]
