"""Platforms as a table: how each learns that an instance stops, its numbers, and their sources.

Only data. What follows from it is `graceful.core.advice`'s. A number stands beside the document or
option that it comes from; "observed" is what people measured, "chosen here" what nobody documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = [
    "ALB_CONTROLLER_INTERVAL",
    "ALB_CONTROLLER_UNHEALTHY",
    "ALB_IDLE",
    "AWS_API_LAG",
    "DOCKER_GRACE",
    "ECS_GRACE",
    "FARGATE_MOST",
    "KNOBS",
    "KUBERNETES_FAILURES",
    "KUBERNETES_GRACE",
    "KUBERNETES_PERIOD",
    "NEGATIVE_TTL",
    "PLATFORMS",
    "SYSTEMD_GRACE",
    "Check",
    "Grace",
    "Knob",
    "Number",
    "Platform",
    "Records",
    "Way",
]

Way = Literal["push", "pull"]
"""push: it is told that the instance goes away; pull: it must find readiness at 503 itself."""


@dataclass(frozen=True, slots=True)
class Number:
    """A default, and where it is written."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Check:
    """Active health checks: after the flip it takes up to period x threshold + timeout."""

    period: Number
    threshold: Number
    timeout: Number


@dataclass(frozen=True, slots=True)
class Records:
    """What clients add that find an instance by name."""

    ttl: Number
    resolver_lag: Number
    client_refresh: Number


@dataclass(frozen=True, slots=True)
class Grace:
    """How long the platform waits before SIGKILL, and the name it has for that."""

    seconds: Number
    option: str
    most: Number | None = None


@dataclass(frozen=True, slots=True)
class Platform:
    """One row. `lag` belongs to push, `check` to pull; a platform may have both."""

    name: str
    lag: Number | None = None
    check: Check | None = None
    records: Records | None = None
    told_by: tuple[str, ...] = ()
    """Platforms that tell this one; its own seconds begin when theirs are over."""
    way: Way = "push"
    """How it learns when none of `told_by` is there."""
    grace: Grace | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Knob:
    """One number that people may replace."""

    name: str
    meaning: str
    whole: bool = False
    way: Way | None = None
    """The way in which it counts; None = both."""


KNOBS: Final = MappingProxyType(
    {
        knob.name: knob
        for knob in (
            Knob("probe_period", "seconds between two health checks", way="pull"),
            Knob("failure_threshold", "failed checks in a row that are believed", True, "pull"),
            Knob("probe_timeout", "seconds that one health check may take", way="pull"),
            Knob("lag", "seconds from being told until no new request comes", way="push"),
            Knob("ttl", "seconds that a DNS record may be cached"),
            Knob("resolver_lag", "seconds that resolvers keep a record beyond its TTL"),
            Knob("client_refresh", "seconds until clients and their pools look the name up again"),
        )
    }
)

_ALB = "AWS, Elastic Load Balancing user guide, health checks for ALB target groups"
_NLB = "AWS, Elastic Load Balancing user guide, health checks for NLB target groups"
_PROBE = "Kubernetes API v1, Probe"
_GCP = "gcloud compute http-health-checks create"
_HAPROXY = "HAProxy 3.0 configuration manual 5.2"
_CADDY = "Caddy 2 reverse_proxy"
_TRAEFIK = "Traefik 3, services, healthCheck"
_CONSUL = "Consul 1.16, health check configuration reference"
_ENVOY = "Envoy API v3, core.HealthCheck"

# What `graceful check` reads as well, each by its name.
KUBERNETES_GRACE: Final = Number(30.0, "Kubernetes API v1, PodSpec.terminationGracePeriodSeconds")
KUBERNETES_PERIOD: Final = Number(10.0, f"{_PROBE}.periodSeconds")
KUBERNETES_FAILURES: Final = Number(3, f"{_PROBE}.failureThreshold")
ECS_GRACE: Final = Number(30.0, "ECS task definition, stopTimeout; ECS_CONTAINER_STOP_TIMEOUT")
FARGATE_MOST: Final = Number(120.0, "ECS task definition, stopTimeout on Fargate")
SYSTEMD_GRACE: Final = Number(90.0, "systemd-system.conf(5), DefaultTimeoutStopSec")
DOCKER_GRACE: Final = Number(10.0, "docker stop --timeout; Compose stop_grace_period")
ALB_IDLE: Final = Number(60.0, "AWS, Application Load Balancer, idle_timeout.timeout_seconds")
# The controller's own defaults, not those of a target group that somebody makes by hand.
ALB_CONTROLLER_INTERVAL: Final = Number(
    15.0, "AWS Load Balancer Controller, alb.ingress.kubernetes.io/healthcheck-interval-seconds"
)
ALB_CONTROLLER_UNHEALTHY: Final = Number(
    2, "AWS Load Balancer Controller, alb.ingress.kubernetes.io/unhealthy-threshold-count"
)
AWS_API_LAG: Final = Number(
    10.0, "observed: aws-load-balancer-controller, deregistering by the API"
)

_ROWS: Final = (
    Platform(
        "kubernetes",
        lag=Number(5, "observed: EndpointSlice to kube-proxy or CNI takes 1 to 5 s"),
        check=Check(
            KUBERNETES_PERIOD,
            KUBERNETES_FAILURES,
            Number(1, f"{_PROBE}.timeoutSeconds"),
        ),
        grace=Grace(
            KUBERNETES_GRACE,
            "terminationGracePeriodSeconds",
        ),
        note="a deleted pod leaves its EndpointSlices at once, whatever its readiness probe finds; "
        "the probe counts (--notice pull) only where a pod stops without being deleted",
    ),
    Platform(
        "alb",
        lag=Number(20, "observed: EKS, ip targets; 25 s in all was enough, 5 s was not"),
        check=Check(
            Number(30, f"{_ALB}: HealthCheckIntervalSeconds"),
            Number(2, f"{_ALB}: UnhealthyThresholdCount"),
            Number(5, f"{_ALB}: HealthCheckTimeoutSeconds"),
        ),
        told_by=("kubernetes", "ecs"),
        way="pull",
        note="when all targets are unhealthy an ALB sends to all of them; "
        "keep deregistration_delay (300 s by default) at least as long as the drain",
    ),
    Platform(
        "nlb",
        lag=Number(120, "observed: ip targets, whatever the deregistration delay is"),
        check=Check(
            Number(30, f"{_NLB}: HealthCheckIntervalSeconds"),
            Number(2, f"{_NLB}: UnhealthyThresholdCount"),
            Number(10, f"{_NLB}: HealthCheckTimeoutSeconds, TCP"),
        ),
        told_by=("kubernetes", "ecs"),
        way="pull",
        note="the health check of an NLB is TCP unless you set HTTP and the readiness path: "
        "a TCP check stays healthy as long as the instance accepts",
    ),
    Platform(
        "ecs",
        lag=Number(0, "ECS deregisters the targets of a task that it stops; the balancer adds its"),
        grace=Grace(
            ECS_GRACE,
            "stopTimeout",
            FARGATE_MOST,
        ),
    ),
    Platform(
        "gcp",
        lag=Number(60, "Google Cloud, enabling connection draining: up to 60 s to take effect"),
        check=Check(
            Number(5, f"{_GCP} --check-interval"),
            Number(2, f"{_GCP} --unhealthy-threshold"),
            Number(5, f"{_GCP} --timeout"),
        ),
        told_by=("kubernetes",),
        way="pull",
        note="endpoints leave a network endpoint group asynchronously; "
        "give the backend service a connection draining timeout as long as the drain",
    ),
    Platform(
        "haproxy",
        lag=Number(1, "chosen here: runtime API 'set server ... state drain', or a reload"),
        check=Check(
            Number(2, f"{_HAPROXY}, inter"),
            Number(3, f"{_HAPROXY}, fall"),
            Number(2, f"{_HAPROXY}, inter (where 'timeout check' is not set)"),
        ),
        told_by=("kubernetes", "consul"),
        way="pull",
        note="without 'option httpchk' the check is TCP and stays up as long as the instance "
        "accepts",
    ),
    Platform(
        "nginx",
        lag=Number(1, "chosen here: a reload once the server is out of its upstream"),
        told_by=("kubernetes", "consul"),
        note="open-source nginx has no health checks and never asks for readiness: take the server "
        "out of its upstream and reload as the instance stops, and let proxy_next_upstream repeat "
        "what fails",
    ),
    Platform(
        "caddy",
        lag=Number(1, "chosen here: a new configuration through the admin API"),
        check=Check(
            Number(30, f"{_CADDY}, health_interval"),
            Number(1, f"{_CADDY}, health_fails"),
            Number(5, f"{_CADDY}, health_timeout"),
        ),
        told_by=("consul",),
        way="pull",
        note="there are no health checks until health_uri is set",
    ),
    Platform(
        "traefik",
        lag=Number(2, "Traefik 3, providers.providersThrottleDuration"),
        check=Check(
            Number(30, f"{_TRAEFIK}.interval"),
            Number(1, "Traefik 3: one failed check takes a server out"),
            Number(5, f"{_TRAEFIK}.timeout"),
        ),
        told_by=("kubernetes", "consul"),
        way="pull",
        note="there are no health checks until healthCheck.path is set",
    ),
    Platform(
        "envoy",
        lag=Number(1, "chosen here: EDS is pushed at once"),
        check=Check(
            Number(10, f"{_ENVOY}.interval has no default; chosen here"),
            Number(1, f"{_ENVOY}.unhealthy_threshold: a 503 counts at once"),
            Number(1, f"{_ENVOY}.timeout has no default; chosen here"),
        ),
        told_by=("kubernetes", "consul"),
    ),
    Platform(
        "istio",
        lag=Number(10, "Istio, pilot-discovery, PILOT_DEBOUNCE_MAX"),
        told_by=("kubernetes",),
        note="the sidecar drains for 5 s (terminationDrainDuration) and then cuts its own app: "
        "give it as long as the delay and the drain",
    ),
    Platform(
        "consul",
        lag=Number(1, "chosen here: maintenance mode is critical at once"),
        check=Check(
            Number(10, f"{_CONSUL}: interval has no default; 10 s in its examples"),
            Number(1, f"{_CONSUL}: failures_before_critical 0, so one check"),
            Number(10, f"{_CONSUL}: timeout"),
        ),
        way="pull",
        note="'consul maint -enable' before SIGTERM tells at once (--notice push)",
    ),
    Platform(
        "dns",
        lag=Number(0, "chosen here: the record is taken out as the instance is told to stop"),
        records=Records(
            Number(60, "Amazon Route 53 developer guide: a TTL of 60 s or less with health checks"),
            Number(0, "chosen here: resolvers keep to the TTL"),
            Number(30, "Java, networkaddress.cache.ttl; aiohttp's ttl_dns_cache is 10 s"),
        ),
        told_by=("kubernetes", "consul", "ecs"),
        note="a lowered TTL counts only after one old TTL has passed (--old-ttl); "
        "a connection pool that never looks the name up again follows no TTL at all",
    ),
    Platform(
        "systemd",
        lag=Number(0, "systemd tells no balancer"),
        grace=Grace(
            SYSTEMD_GRACE,
            "TimeoutStopSec",
        ),
    ),
    Platform(
        "docker",
        lag=Number(0, "docker tells no balancer before the container has gone"),
        grace=Grace(
            DOCKER_GRACE,
            "stop_grace_period",
        ),
    ),
)

PLATFORMS: Final = MappingProxyType({row.name: row for row in _ROWS})
"""Every platform by its name. `told_by` has no circles."""

NEGATIVE_TTL: Final = Number(
    900, "RFC 2308: the lesser of the SOA's TTL and MINIMUM; Route 53 has 900 and 86400"
)
"""How long 'there is no such name' is cached."""
