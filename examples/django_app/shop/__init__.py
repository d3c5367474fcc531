"""A Django project with every kind of request that a rolling restart can lose.

In the folder with manage.py:

    python manage.py graceful            # how it will stop, second by second
    python manage.py check --deploy      # what stands in the way
    uvicorn shop.asgi:application
    gunicorn -c python:graceful.integrations.gunicorn_conf -k gthread --threads 8 \
        shop.wsgi:application
"""
