# expect: gunicorn-install
threads = 8
keepalive = 5  # expect: idle-order
