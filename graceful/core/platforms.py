"""Platforms as a table: how each learns that an instance stops, its numbers, and their sources.

Only data. What follows from it is `graceful.core.advice`'s. A number stands beside the document and
the field that it comes from, and each was read there; the comments say where those documents are.
"observed" is what people measured and wrote down in public, where no document has a number;
"chosen here" is what nobody documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = [
    "ALB_CONTROLLER_INTERVAL",
    "ALB_CONTROLLER_UNHEALTHY",
    "ALB_IDLE",
    "ALB_LAG",
    "AWS_API_LAG",
    "CADDY_FAILS",
    "CADDY_INTERVAL",
    "CADDY_KEEPALIVE",
    "DOCKER_GRACE",
    "ECS_GRACE",
    "FARGATE_MOST",
    "HAPROXY_FALL",
    "HAPROXY_INTER",
    "ISTIO_DRAIN",
    "KNOBS",
    "KUBERNETES_FAILURES",
    "KUBERNETES_GRACE",
    "KUBERNETES_LAG",
    "KUBERNETES_PERIOD",
    "NEGATIVE_TTL",
    "NGINX_CLIENT_IDLE",
    "NGINX_PLUS_FAILS",
    "NGINX_PLUS_INTERVAL",
    "NGINX_UPSTREAM_IDLE",
    "NLB_LAG",
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

# docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html;
# the API reference (CreateTargetGroup) says the same, but 6 s for HealthCheckTimeoutSeconds.
_ALB = "AWS, user guide for Application Load Balancers, target group health checks"
# docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html
_ELB = "AWS, Elastic Load Balancing API, CreateTargetGroup"
# kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
_PROBE = "Kubernetes API v1, Probe"
# cloud.google.com/sdk/gcloud/reference/compute/http-health-checks/create
_GCP = "gcloud compute http-health-checks create"
# docs.haproxy.org, Configuration Manual 5.2, Server and default-server options
_HAPROXY = "HAProxy configuration manual 5.2"
# nginx.org/en/docs/http/ngx_http_upstream_module.html, …_upstream_hc_module, ngx_http_core_module
_NGINX = "nginx, ngx_http"
# caddyserver.com/docs/caddyfile/directives/reverse_proxy
_CADDY = "Caddy 2, reverse_proxy"
# doc.traefik.io/traefik/reference/routing-configuration/http/load-balancing/service/
_TRAEFIK = "Traefik 3, HTTP service, healthCheck"
# developer.hashicorp.com/consul/docs/services/configuration/checks-configuration-reference
_CONSUL = "Consul, health check configuration reference"
# envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/health_check.proto
_ENVOY = "Envoy API v3, core.HealthCheck"
# kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/
_CONTROLLER = "AWS Load Balancer Controller, alb.ingress.kubernetes.io"
# docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
_ECS = "AWS, ECS API, ContainerDefinition.stopTimeout"

# What `graceful check` reads as well, each by its name.
KUBERNETES_GRACE: Final = Number(30.0, "Kubernetes API v1, PodSpec.terminationGracePeriodSeconds")
KUBERNETES_PERIOD: Final = Number(10.0, f"{_PROBE}.periodSeconds")
KUBERNETES_FAILURES: Final = Number(3, f"{_PROBE}.failureThreshold")
KUBERNETES_LAG: Final = Number(5.0, "observed: EndpointSlice to kube-proxy or CNI takes 1 to 5 s")
ECS_GRACE: Final = Number(30.0, f"{_ECS}; on EC2 ECS_CONTAINER_STOP_TIMEOUT")
FARGATE_MOST: Final = Number(120.0, f"{_ECS}, on Fargate")
# Distributions may build it with another number: systemctl show -p DefaultTimeoutStopUSec
SYSTEMD_GRACE: Final = Number(90.0, "systemd-system.conf(5), DefaultTimeoutStopSec")
# github.com/compose-spec/compose-spec/blob/main/05-services.md; docs.docker.com, container stop
DOCKER_GRACE: Final = Number(
    10.0, "Compose specification, stop_grace_period; docker stop, --timeout (Linux)"
)
# docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_LoadBalancerAttribute.html
ALB_IDLE: Final = Number(60.0, "AWS, LoadBalancerAttribute, idle_timeout.timeout_seconds")
# The controller's own defaults, not those of a target group that somebody makes by hand.
ALB_CONTROLLER_INTERVAL: Final = Number(15.0, f"{_CONTROLLER}/healthcheck-interval-seconds")
ALB_CONTROLLER_UNHEALTHY: Final = Number(2, f"{_CONTROLLER}/unhealthy-threshold-count")
AWS_API_LAG: Final = Number(
    10.0, "observed: aws-load-balancer-controller, deregistering by the API"
)
ALB_LAG: Final = Number(
    20.0, "observed: aws-load-balancer-controller, ip targets: 25 s were enough, 5 s not"
)
NLB_LAG: Final = Number(
    120.0, "observed: aws-load-balancer-controller, ip targets, whatever deregistration_delay is"
)
HAPROXY_INTER: Final = Number(2.0, f"{_HAPROXY}, inter")
HAPROXY_FALL: Final = Number(3, f"{_HAPROXY}, fall")
CADDY_INTERVAL: Final = Number(30.0, f"{_CADDY}, health_interval")
CADDY_FAILS: Final = Number(1, f"{_CADDY}, health_fails")
CADDY_KEEPALIVE: Final = Number(120.0, f"{_CADDY}, transport http, keepalive")
NGINX_UPSTREAM_IDLE: Final = Number(60.0, f"{_NGINX}_upstream_module, keepalive_timeout")
NGINX_CLIENT_IDLE: Final = Number(75.0, f"{_NGINX}_core_module, keepalive_timeout")
NGINX_PLUS_INTERVAL: Final = Number(5.0, f"{_NGINX}_upstream_hc_module, health_check interval")
NGINX_PLUS_FAILS: Final = Number(1, f"{_NGINX}_upstream_hc_module, health_check fails")
# istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig
ISTIO_DRAIN: Final = Number(5.0, "Istio, ProxyConfig.terminationDrainDuration")

_ROWS: Final = (
    Platform(
        "kubernetes",
        lag=KUBERNETES_LAG,
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
        lag=ALB_LAG,
        check=Check(
            Number(30, f"{_ALB}, HealthCheckIntervalSeconds"),
            Number(2, f"{_ALB}, UnhealthyThresholdCount"),
            Number(5, f"{_ALB}, HealthCheckTimeoutSeconds"),
        ),
        told_by=("kubernetes", "ecs"),
        way="pull",
        note="when all targets are unhealthy an ALB sends to all of them; "
        "keep deregistration_delay (300 s by default) at least as long as the drain; "
        "the AWS Load Balancer Controller checks every 15 s unless it is told",
    ),
    Platform(
        "nlb",
        lag=NLB_LAG,
        check=Check(
            Number(30, f"{_ELB}.HealthCheckIntervalSeconds"),
            Number(2, f"{_ELB}.UnhealthyThresholdCount"),
            Number(10, f"{_ELB}.HealthCheckTimeoutSeconds, TCP and HTTPS"),
        ),
        told_by=("kubernetes", "ecs"),
        way="pull",
        note="the health check of an NLB is TCP unless you set HTTP and the readiness path: "
        "a TCP check stays healthy as long as the instance accepts; support of AWS has named 180 "
        "to 300 s for a deregistration, so measure yours",
    ),
    Platform(
        "ecs",
        lag=Number(0, "chosen here: ECS deregisters the targets itself; the balancer adds its"),
        grace=Grace(
            ECS_GRACE,
            "stopTimeout",
            FARGATE_MOST,
        ),
        note="ECS deregisters the task of a service before it sends SIGTERM, so much of the "
        "balancer's delay may be over by then; not so when Fargate Spot takes the task",
    ),
    Platform(
        "gcp",
        lag=Number(60, "chosen here: nothing says how long an endpoint takes to leave its group"),
        check=Check(
            Number(5, f"{_GCP} --check-interval"),
            Number(2, f"{_GCP} --unhealthy-threshold"),
            Number(5, f"{_GCP} --timeout"),
        ),
        told_by=("kubernetes",),
        way="pull",
        # github.com/kubernetes/ingress-gce/blob/master/pkg/translator/healthchecks.go
        note="endpoints leave a network endpoint group asynchronously; GKE's Ingress makes health "
        "checks of its own, every 15 s to endpoints and every 60 s to nodes; give the backend "
        "service a connection draining timeout as long as the drain",
    ),
    Platform(
        "haproxy",
        lag=Number(1, "chosen here: runtime API 'set server ... state drain', or a reload"),
        check=Check(
            HAPROXY_INTER,
            HAPROXY_FALL,
            Number(2, f"{_HAPROXY}, inter, where 'timeout check' is not set"),
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
            CADDY_INTERVAL,
            CADDY_FAILS,
            Number(5, f"{_CADDY}, health_timeout"),
        ),
        told_by=("consul",),
        way="pull",
        note="there are no health checks until health_uri is set",
    ),
    Platform(
        "traefik",
        lag=Number(2, "Traefik 3, install configuration, providers.providersThrottleDuration"),
        check=Check(
            Number(30, f"{_TRAEFIK}.interval"),
            Number(1, "Traefik 3, pkg/healthcheck: one failed check takes a server out"),
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
            Number(10, f"chosen here: {_ENVOY}.interval has no default"),
            Number(1, f"{_ENVOY}.unhealthy_threshold: a 503 counts at once"),
            Number(1, f"chosen here: {_ENVOY}.timeout has no default"),
        ),
        told_by=("kubernetes", "consul"),
    ),
    Platform(
        "istio",
        # istio.io/latest/docs/reference/commands/pilot-discovery/#envvars
        lag=Number(10, "Istio, pilot-discovery, PILOT_DEBOUNCE_MAX"),
        told_by=("kubernetes",),
        note="the sidecar drains for 5 s (terminationDrainDuration) and then cuts its own app: "
        "give it as long as the delay and the drain",
    ),
    Platform(
        "consul",
        lag=Number(1, "chosen here: maintenance mode is critical at once"),
        check=Check(
            Number(10, f"chosen here: {_CONSUL}, interval has no default"),
            Number(1, f"{_CONSUL}, failures_before_critical 0, so one check"),
            Number(10, f"{_CONSUL}, timeout, HTTP"),
        ),
        way="pull",
        note="'consul maint -enable' before SIGTERM tells at once (--notice push)",
    ),
    Platform(
        "dns",
        lag=Number(0, "chosen here: the record is taken out as the instance is told to stop"),
        records=Records(
            # docs.aws.amazon.com/Route53, developer guide, values for simple and other records
            Number(60, "AWS, Route 53 developer guide, TTL: 60 s or less with a health check"),
            Number(0, "chosen here: resolvers keep to the TTL"),
            # docs.oracle.com, InetAddress: finite, implementation dependent; 30 s is OpenJDK's.
            Number(30, "OpenJDK, networkaddress.cache.ttl; aiohttp's ttl_dns_cache is 10 s"),
        ),
        told_by=("kubernetes", "consul", "ecs"),
        note="a lowered TTL counts only after one old TTL has passed (--old-ttl); "
        "Consul answers with a TTL of 0 s and CoreDNS in a cluster with 30 s, unless they are told "
        "otherwise: give --ttl; "
        "a connection pool that never looks the name up again follows no TTL at all",
    ),
    Platform(
        "systemd",
        lag=Number(0, "chosen here: systemd tells no balancer"),
        grace=Grace(
            SYSTEMD_GRACE,
            "TimeoutStopSec",
        ),
    ),
    Platform(
        "docker",
        lag=Number(0, "chosen here: docker tells no balancer before the container has gone"),
        grace=Grace(
            DOCKER_GRACE,
            "stop_grace_period",
        ),
    ),
)

PLATFORMS: Final = MappingProxyType({row.name: row for row in _ROWS})
"""Every platform by its name. `told_by` has no circles."""

# docs.aws.amazon.com/Route53/latest/DeveloperGuide/SOA-NSrecords.html
NEGATIVE_TTL: Final = Number(
    900, "RFC 2308: the lesser of the SOA's TTL and MINIMUM; Route 53 has 900 and 86400"
)
"""How long 'there is no such name' is cached."""
