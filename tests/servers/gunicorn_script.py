"""gunicorn as its console script runs it: an arbiter started with `-m` can't re-execute itself."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()
