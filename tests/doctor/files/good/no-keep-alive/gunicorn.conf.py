# sync workers close each connection, so nobody's idle timeout matters
import graceful.integrations.gunicorn

graceful_timeout = 24  # drain 21 + clean-up 3: just enough
graceful.integrations.gunicorn.install(globals(), grace_period=30)
