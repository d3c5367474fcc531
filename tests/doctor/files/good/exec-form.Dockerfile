FROM python:3.13-slim
COPY . /srv
RUN pip install -r requirements.txt
CMD ["gunicorn", "shop.wsgi"]
