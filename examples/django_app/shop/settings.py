"""The three places where graceful is named: an app, a middleware, and what it should keep to."""

INSTALLED_APPS = ["graceful.integrations.django"]

MIDDLEWARE = [
    "graceful.integrations.django.GracefulMiddleware",  # first: probes pass no other
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]

# Variables such as GRACEFUL_GRACE_PERIOD beat this. With gunicorn, seconds that differ from the
# defaults belong there, or into its install(...): the arbiter keeps to them, too.
GRACEFUL = {
    "grace_period": 30,  # as terminationGracePeriodSeconds
    "propagation_delay": 5,
    "checks": {"stock": "shop.views.stock_is_known"},
}

SECRET_KEY = "for an example only"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
