"""Where the views are. The probes, /readyz and /livez, need no place here."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.home),
    path("slow", views.slow),
    path("echo", views.echo),
    path("events", views.events),
]
