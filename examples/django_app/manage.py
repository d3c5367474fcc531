"""Django's command line. `python manage.py graceful` shows how this project stops."""

import os
import sys

from django.core import management

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    management.execute_from_command_line(sys.argv)
