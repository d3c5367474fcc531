"""Rules about what stands in front: does it ask, how fast does it notice, who hangs up first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from ..core.budget import Settings
from ..core.platforms import ALB_LAG, AWS_API_LAG, KUBERNETES_LAG, NLB_LAG
from .assemble import ALB, attribute
from .inforce import delay_before_drain, keep_alive, server, serves, settings
from .model import Balancer, Check, Fact, Finding, Process, Scene, Service, Workload
from .rules_rollout import selected

__all__ = ["rules"]

NLB: Final = "service.beta.kubernetes.io/aws-load-balancer-"

KEEP_LONGER: Final = {
    "uvicorn": "--timeout-keep-alive {}",
    "gunicorn": "keepalive = {}",
    "hypercorn": "--keep-alive {}",
    "waitress": "--channel-timeout {}",
}

Target = tuple[Workload, Process]


def rules(scene: Scene) -> Iterator[Finding]:
    """Judge every balancer beside the processes that it sends to."""
    undirected = [b for b in scene.balancers if b.kind == "alb" and not list(_targets(b, scene))]
    for balancer in scene.balancers:
        targets = list(_targets(balancer, scene))
        for workload, process in targets:
            yield from _idle(balancer, workload, process)
        yield from _front(balancer, undirected)
        if balancer.by_ip:
            yield from _propagation(balancer.title, targets, AWS_API_LAG.value, ALB_LAG.value)
        if balancer.kind != "alb":
            yield from _blind(balancer)
            yield from _retries(balancer)
            yield from _slow(balancer, scene, targets)
        yield from _path(balancer, targets)
    yield from _target_groups(scene)


def _targets(balancer: Balancer, scene: Scene) -> Iterator[Target]:
    """Yield whom it sends to: those it names, else every web process that it may mean."""
    everyone = [(w, p) for w in scene.workloads for p in w.processes if serves(p)]
    named = [(w, p) for w, p in everyone if _is_named(balancer, w, scene)]
    if named or balancer.kind == "alb":
        yield from named
    else:
        means = not any(map(_is_name, balancer.hosts))
        yield from ((w, p) for w, p in everyone if means or w.platform != "compose")


def _is_name(host: str) -> bool:
    """Whether this can only mean one service of a compose file, or a socket that none has."""
    if host in ("", "localhost") or "$" in host or "{" in host:
        return False
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return True
    return False


def _is_named(balancer: Balancer, workload: Workload, scene: Scene) -> bool:
    hosts = {host.partition(".")[0] for host in balancer.hosts}
    if workload.platform == "compose":
        return workload.name in hosts
    chosen = [s for s in scene.services if s.name in hosts]
    return any(selected(service.selector, workload) for service in chosen)


def _idle(balancer: Balancer, workload: Workload, process: Process) -> Iterator[Finding]:
    keeps, named = keep_alive(process), server(process)
    if balancer.idle is None or keeps is None or keeps.seconds is None or named is None:
        return
    if keeps.seconds > balancer.idle.value:
        return
    longer = math.ceil(balancer.idle.value) + 5
    option = keeps.name.split()[-1] + ("" if keeps.written else ", the default")
    yield Finding(
        "idle-order",
        keeps.place,
        workload.subject(process),
        f"{named.name} closes idle connections after {keeps.seconds:g} s ({option}), "
        f"before {balancer.title} does after {balancer.idle.value:g} s",
        f"{KEEP_LONGER.get(named.name, 'keep them for {} s').format(longer)}, or less than "
        f"{keeps.seconds:g} s in {balancer.idle_setting}",
        {"server": keeps.seconds, "balancer": balancer.idle.value},
    )


def _front(balancer: Balancer, albs: list[Balancer]) -> Iterator[Finding]:
    """An ALB in front of a reverse proxy: that one is its server."""
    if balancer.front_idle is None or balancer.kind == "alb":
        return
    for alb in albs:
        if alb.idle is not None and balancer.front_idle.value <= alb.idle.value:
            yield Finding(
                "idle-order",
                balancer.front_idle.place,
                balancer.title,
                f"{balancer.front_setting} {balancer.front_idle.value:g} s ends before the idle "
                f"timeout of {alb.title}, {alb.idle.value:g} s",
                f"{balancer.front_setting} {math.ceil(alb.idle.value) + 15}s",
                {"server": balancer.front_idle.value, "balancer": alb.idle.value},
            )


BLIND: Final = {
    "haproxy": (
        "{n} of {all} servers without check",
        "option httpchk GET /readyz, and check inter 1s fall 2 on each server",
    ),
    "caddy": (
        "no health_uri: nothing asks for readiness",
        "health_uri /readyz, health_interval 1s",
    ),
    "nginx": (
        "{n} servers and no active check: a stop is noticed by refused connections",
        "keep error in proxy_next_upstream, as by default; or reload nginx before the stop",
    ),
}


def _blind(balancer: Balancer) -> Iterator[Finding]:
    several = len(balancer.hosts) > 1
    if balancer.blind and several:
        text, fix = BLIND[balancer.kind]
        servers = len(balancer.hosts)
        blind = len(balancer.blind) if balancer.kind == "haproxy" else servers
        yield Finding(
            "passive-only" if balancer.kind == "nginx" else "balancer-blind",
            balancer.place if balancer.kind == "nginx" else balancer.blind[0],
            balancer.title,
            text.format(n=blind, all=servers),
            fix,
        )
    if balancer.check is not None and not balancer.check.http:
        yield Finding(
            "balancer-blind",
            balancer.check.place,
            balancer.title,
            "check without option httpchk only opens a TCP connection, which succeeds until the "
            "listener is closed",
            "option httpchk GET /readyz",
        )


def _retries(balancer: Balancer) -> Iterator[Finding]:
    if balancer.retries is not None:
        fix = {
            "haproxy": "option redispatch, with retries 3",
            "nginx": "proxy_next_upstream error timeout",
            "caddy": "lb_try_duration 5s",
        }[balancer.kind]
        yield Finding(
            "no-retry",
            balancer.retries.place,
            balancer.title,
            f"{balancer.retries.value}: a refused connection becomes an error of the client's",
            fix,
        )


def _slow(balancer: Balancer, scene: Scene, targets: list[Target]) -> Iterator[Finding]:
    check = balancer.check
    if check is None or not check.http:
        return
    known = [s for _, p in targets if isinstance(s := settings(p), Settings)]
    if not known and scene.workloads:
        return  # nobody waits for this balancer to notice
    delay = min((s.propagation_delay for s in known), default=Settings().propagation_delay)
    if check.seconds > delay:
        default = "" if known else ", graceful's default"
        equals = f" = {check.seconds:g} s" if "×" in check.sum else ""
        yield Finding(
            "check-slow",
            check.place,
            balancer.title,
            f"it notices after {check.sum}{equals}, but propagation_delay is {delay:g} s{default}",
            f"check more often, or GRACEFUL_PROPAGATION_DELAY={math.ceil(check.seconds) + 1}",
            {"check": check.seconds, "propagation_delay": delay},
        )


def _path(balancer: Balancer, targets: list[Target]) -> Iterator[Finding]:
    path = _asked(balancer.check)
    for workload, process in targets:
        found = settings(process)
        own = found.readiness_path if isinstance(found, Settings) else None
        if path is None or own is None or path.value.split("?")[0].endswith(own):
            continue
        yield Finding(
            "check-path",
            path.place,
            balancer.title,
            f"it asks {path.value}, but {workload.subject(process)} says 503 at {own} only",
            f"check {own}",
        )
        return


def _asked(check: Check | None) -> Fact[str] | None:
    return check.path if check is not None and check.http else None


def _propagation(title: str, targets: list[Target], needed: float, lag: float) -> Iterator[Finding]:
    """Judge targets of type ip, which AWS's API has to take out; `lag` is what that takes."""
    enough = KUBERNETES_LAG.value + lag
    for workload, process in targets:
        seconds = _serves_on(process)
        if seconds is not None and seconds < needed:
            yield Finding(
                "alb-propagation",
                process.place,
                workload.subject(process),
                f"{title} may send requests for {needed:g} s and more after the pod is "
                f"deleted, but it serves for {seconds:g} s",
                f"GRACEFUL_PROPAGATION_DELAY={enough:g}, with a grace period to match",
                {"serves": seconds, "needed": needed},
            )


def _serves_on(process: Process) -> float | None:
    """Return the seconds that a process serves on when it is to stop; None = nothing says so."""
    found, sleep = settings(process), delay_before_drain(process)
    if sleep is None:
        return None
    if isinstance(found, Settings):
        return sleep + found.propagation_delay
    return sleep or None


def _target_groups(scene: Scene) -> Iterator[Finding]:
    """Deregistration delays, of Ingresses and of Services of type LoadBalancer."""
    name = "deregistration_delay.timeout_seconds"
    for ingress in scene.ingresses:
        delay = attribute(ingress.notes.get(f"{ALB}target-group-attributes"), name)
        chosen = [s for s in scene.services if s.name in ingress.services]
        targets = [w for w in scene.workloads if any(selected(s.selector, w) for s in chosen)]
        yield from _deregistration(delay, f"Ingress {ingress.name}", targets)
    for service in scene.services:
        delay = attribute(service.notes.get(f"{NLB}target-group-attributes"), name)
        targets = [w for w in scene.workloads if selected(service.selector, w)]
        yield from _deregistration(delay, f"Service {service.name}", targets)
        if _has_ip_targets(service):
            both = [(w, p) for w in targets for p in w.processes if serves(p)]
            title = f"the NLB of Service {service.name}"
            yield from _propagation(title, both, NLB_LAG.value, NLB_LAG.value)


def _has_ip_targets(service: Service) -> bool:
    """Whether pods are targets; with those of type instance nodes are, and they stay."""
    kind, target = service.notes.get(f"{NLB}type"), service.notes.get(f"{NLB}nlb-target-type")
    if kind is None:
        return False
    return kind.value == "nlb-ip" or (target is not None and target.value == "ip")


def _deregistration(
    delay: Fact[float] | None, title: str, targets: list[Workload]
) -> Iterator[Finding]:
    budgets = [s for w in targets for p in w.processes if isinstance(s := settings(p), Settings)]
    needed = max((s.propagation_delay + s.drain for s in budgets), default=None)
    if delay is not None and needed is not None and delay.value < needed:
        yield Finding(
            "alb-deregistration",
            delay.place,
            title,
            f"deregistration_delay {delay.value:g} s cuts requests before propagation_delay and "
            f"drain, {needed:g} s, are over",
            f"deregistration_delay.timeout_seconds={math.ceil(needed)}",
            {"deregistration_delay": delay.value, "needed": needed},
        )
