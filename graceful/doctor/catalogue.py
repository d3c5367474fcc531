"""Every rule: its id, what it costs, and the story that `--explain` tells. Data only.

error = requests are lost at every stop, or the stop cannot work. warning = they are lost when
something usual comes together. note = worth knowing; nothing has to be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CATALOGUE", "RULES", "Rule", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row."""

    id: str
    severity: Severity
    title: str
    story: str


CATALOGUE: Final = (
    # -- the budget ---------------------------------------------------------------------------
    Rule(
        "settings",
        "error",
        "graceful's settings contradict each other or can't be read",
        "The process would stop at start with this very message: bad values never serve. The sum "
        "is pre_stop + propagation_delay + drain_timeout + cleanup_timeout + exit_margin <= "
        "grace_period, all in seconds.",
    ),
    Rule(
        "grace-exceeded",
        "error",
        "the platform kills before the process is done",
        "The process plans its stop for grace_period seconds (30 unless GRACEFUL_GRACE_PERIOD says "
        "otherwise), but the platform sends SIGKILL earlier. What is still in flight then is cut "
        "in the middle of a response, with no report. Docker and Compose wait 10 s, Kubernetes and "
        "ECS 30 s, systemd 90 s, unless they are told. Write the same number in both places.",
    ),
    Rule(
        "grace-unused",
        "note",
        "the platform would wait longer than the process uses",
        "Requests that need longer than the drain are cut although the platform would still wait. "
        "Give GRACEFUL_GRACE_PERIOD the platform's number, or lower the platform's.",
    ),
    Rule(
        "grace-zero",
        "error",
        "the platform sends SIGKILL at once",
        "With a grace period of 0 there is no SIGTERM to act on, or nothing can be done before "
        "SIGKILL: every request in flight is lost at every stop. In Kubernetes the pod is also "
        "removed from the API before its containers have ended.",
    ),
    Rule(
        "prestop-uncounted",
        "error",
        "a preStop hook eats seconds that the process counts on",
        "Kubernetes counts the preStop hook inside terminationGracePeriodSeconds; SIGTERM comes "
        "only after the hook. A process that does not know of it plans with seconds that are gone, "
        "and SIGKILL comes before its own deadline. Remove the hook (graceful keeps serving for "
        "propagation_delay by itself), or say its seconds in GRACEFUL_PRE_STOP.",
    ),
    Rule(
        "prestop-and-delay",
        "warning",
        "the preStop hook and the propagation delay are both waited for",
        "Both do the same: keep serving until balancers have stopped choosing the instance. Served "
        "one after the other they make each stop longer and the drain shorter. During a preStop "
        "sleep readiness still says 200, so the propagation delay is the better of the two.",
    ),
    Rule(
        "server-timeout",
        "error",
        "the server's own timeout does not fit into the stop",
        "Servers count by themselves: gunicorn kills workers after graceful_timeout (30 s), "
        "uvicorn cancels requests after --timeout-graceful-shutdown. Too short, it cuts what "
        "graceful would let finish; too long, SIGKILL comes first and cuts them without a word.",
    ),
    Rule(
        "server-timeout-unused",
        "warning",
        "the server's own timeout begins after graceful's drain",
        "uvicorn starts to count when graceful hands over, which is when nothing is in flight any "
        "more. A long timeout there only delays the end when a stream refuses to close.",
    ),
    Rule(
        "unknown-variable",
        "warning",
        "a GRACEFUL_* variable that is no setting",
        "It is ignored, so what was meant is not in force. The process says so as well, but only "
        "in its log.",
    ),
    # -- the process --------------------------------------------------------------------------
    Rule(
        "shell-swallows-sigterm",
        "error",
        "a shell is process 1 and SIGTERM never arrives",
        "In a container the signal goes to process 1. `sh -c 'server …'` and the shell form of CMD "
        "make that a shell, which waits for its child and passes nothing on; and process 1 ignores "
        "a SIGTERM that it has no handler for. The platform waits out the grace period and kills. "
        "(bash replaces itself by the last command of -c; dash, the sh of Debian, does not.) "
        'Write `exec` before the server, or use the exec form: ["uvicorn", "app:app"].',
    ),
    Rule(
        "stop-signal",
        "error",
        "the platform stops the process with another signal than SIGTERM",
        "SIGTERM is what servers and graceful take for a stop. SIGINT skips the propagation delay "
        "(nobody waits for Ctrl-C), gunicorn drops requests on SIGINT and SIGQUIT, and SIGKILL "
        "leaves nothing to do. An image's STOPSIGNAL counts as well.",
    ),
    Rule(
        "no-lame-duck",
        "warning",
        "nothing keeps serving while balancers still send requests",
        "When a pod is deleted, SIGTERM and the news that it is going leave at the same time, and "
        "the news takes a few seconds. Bare servers close their listener at once, so requests of "
        "those seconds are refused. Either graceful's middleware keeps serving for "
        "propagation_delay, or a preStop hook sleeps. If the middleware is in the app already, "
        "write GRACEFUL_GRACE_PERIOD into the manifest, so that this can be checked.",
    ),
    Rule(
        "uvicorn-no-timeout",
        "warning",
        "uvicorn waits for open connections for ever",
        "Without --timeout-graceful-shutdown and without graceful one open stream or slow client "
        "holds the process until SIGKILL, which then cuts everything else too, skips the clean-up, "
        "and makes each rollout as slow as the grace period.",
    ),
    Rule(
        "development-server",
        "warning",
        "a server that is meant for development",
        "flask run, runserver and --reload end with everything that is in flight; under --reload "
        "graceful waits for nothing either, so that each saved file is quick.",
    ),
    Rule(
        "gunicorn-install",
        "warning",
        "gunicorn's configuration does not call graceful's install",
        "Only gunicorn's arbiter knows whether the instance goes away or one worker is replaced, "
        "so under gunicorn the middleware needs one line in gunicorn.conf.py: "
        "graceful_gunicorn.install(globals()). Without it a worker learns of the stop only when "
        "the arbiter has closed the listeners.",
    ),
    Rule(
        "gunicorn-worker",
        "warning",
        "gunicorn's own settings work against the budget",
        "timeout kills a sync worker in any longer request; max_requests without jitter replaces "
        "all workers at once; worker_connections can leave a probe waiting.",
    ),
    Rule(
        "kill-mode",
        "error",
        "systemd leaves processes behind or never signals them",
        "KillMode=process signals and kills only the main process: workers that it leaves behind "
        "go on holding the port while the next instance starts. KillMode=none signals nobody. Use "
        "mixed (SIGTERM to the main process, SIGKILL to all) or control-group, the default.",
    ),
    Rule(
        "fargate-limit",
        "error",
        "stopTimeout is more than Fargate allows",
        "Fargate waits at most 120 s; the registration of the task definition is refused.",
    ),
    # -- probes -------------------------------------------------------------------------------
    Rule(
        "no-readiness",
        "warning",
        "no readiness probe",
        "Without one a new pod gets requests as soon as its container runs, before the server "
        "listens: every rollout loses the first ones. And no balancer can see that an instance has "
        "entered lame duck.",
    ),
    Rule(
        "readiness-path",
        "warning",
        "the readiness probe asks another path than graceful answers",
        "Only the path in GRACEFUL_READINESS_PATH (/readyz) says 503 in lame duck and in the "
        "drain. A probe of another path goes on saying 200 until the listener is closed. With an "
        "endpoint of your own set GRACEFUL_READINESS_PATH to it and GRACEFUL_READINESS_MODE=wrap.",
    ),
    Rule(
        "liveness-on-readiness",
        "error",
        "liveness and readiness ask the same question",
        "Readiness is meant to fail: while the database is away, while an operator has the "
        "instance in lame duck, during the drain. A liveness probe there turns each of these into "
        "a kill of the container. Point it at /livez, which says 200 in every phase.",
    ),
    Rule(
        "liveness-cuts-drain",
        "note",
        "the liveness probe can fail during the drain",
        "The drain closes the main port, so a liveness probe there finds nobody. Kubelets before "
        "1.25 go on probing a pod that is being deleted, and kill it when the probe has failed "
        "often enough. Let period × threshold exceed the drain, or probe the port of "
        "GRACEFUL_PROBE_PORT, which answers to the end.",
    ),
    Rule(
        "readiness-slow",
        "note",
        "the readiness probe is slower than the propagation delay",
        "A deleted pod is taken out of its Services at once, whatever the probe says. But whoever "
        "goes by the probe (an external balancer, an operator's `graceful drain`) learns of lame "
        "duck only after period × threshold, when the listener may be closed already.",
    ),
    # -- rollouts -----------------------------------------------------------------------------
    Rule(
        "sidecar-leaves-first",
        "warning",
        "a proxy beside the app gets SIGTERM at the same time",
        "All containers of a pod are signalled at once. A proxy that the app's traffic or its "
        "database connections go through may be gone seconds later, while the app still drains: "
        "its last requests fail. A native sidecar (an init container with restartPolicy: Always, "
        "Kubernetes 1.29) ends after the app; on ECS the app's dependsOn says the same.",
    ),
    Rule(
        "mesh-leaves-first",
        "warning",
        "the mesh's proxy leaves before the app has drained",
        "An injected proxy gets SIGTERM together with the app. Istio's drains for "
        "terminationDrainDuration (5 s) and exits; Linkerd's stops accepting at once. Everything "
        "that the app still serves goes through it. Native sidecars, which both meshes offer, end "
        "after the app.",
    ),
    Rule(
        "no-overlap",
        "warning",
        "there is a moment with no instance at all",
        "The old instance goes before the new one is ready: with strategy Recreate, with "
        "maxUnavailable as large as the number of replicas, or with a StatefulSet of one. No drain "
        "can help when nobody else is there to take the requests.",
    ),
    Rule(
        "connection-age",
        "note",
        "gRPC behind DNS without a bounded connection age",
        "Clients of a headless Service resolve names when they connect, and gRPC connects once: "
        "they never learn of new instances, and leave an old one only at its GOAWAY. Bound the age "
        "of connections (grpc.max_connection_age_ms with its grace), so that they spread again.",
    ),
    # -- balancers ----------------------------------------------------------------------------
    Rule(
        "idle-order",
        "warning",
        "the server closes idle connections before the balancer does",
        "Whoever reuses an idle connection must be the one that gives up first: client < balancer "
        "< server. When the server is first, a request may be sent just while it closes, and "
        "becomes a 502 that nobody may retry if it is a POST. uvicorn keeps idle connections for "
        "5 s, gunicorn for 2 s; an ALB and nginx for 60 s, Caddy for 120 s. nginx keeps them where "
        "its upstream has keepalive, and from 1.29.7 on everywhere.",
    ),
    Rule(
        "balancer-blind",
        "warning",
        "the balancer never asks for readiness",
        "Lame duck tells the balancer to stop choosing this instance, by saying 503 to its check. "
        "A balancer that does not check, or only opens a TCP connection, sends new requests until "
        "the listener is closed.",
    ),
    Rule(
        "passive-only",
        "note",
        "nginx learns of a stop only by failed connections",
        "nginx has no active checks (nginx Plus has): it notices when a connection is refused, "
        "after the drain has closed the listener, and then asks another server "
        "(proxy_next_upstream). Refused connections carry nothing, so that is safe; a reload of "
        "nginx before the stop is safer.",
    ),
    Rule(
        "check-path",
        "warning",
        "the balancer checks another path than readiness",
        "Liveness says 200 in every phase on purpose, and other paths know nothing of the stop. "
        "Only the readiness path says 503 while the instance still serves.",
    ),
    Rule(
        "check-slow",
        "warning",
        "the balancer notices later than the propagation delay ends",
        "Readiness says 503, but the balancer acts on it only after some failed checks. If that "
        "takes longer than propagation_delay the listener closes while requests still come.",
    ),
    Rule(
        "no-retry",
        "note",
        "the balancer does not try another server",
        "When a connection is refused nothing has been sent, so another server can be tried "
        "without risk. It is the last net for a stop that was noticed late.",
    ),
    Rule(
        "alb-deregistration",
        "warning",
        "the target group's deregistration delay is shorter than the drain",
        "When a target leaves, the balancer lets its requests finish for the deregistration delay "
        "(300 s) and then cuts them, whatever the process still does. It has to cover "
        "propagation_delay and drain.",
    ),
    Rule(
        "alb-propagation",
        "warning",
        "the target group learns of the stop later than the delay ends",
        "With targets of type ip the controller deregisters a pod through AWS's API, which takes "
        "about 10 s before the balancer stops sending: reports say that 5 s were not enough and "
        "25 s were. Network load balancers have been seen to need two minutes; support of AWS has "
        "named three to five.",
    ),
)

RULES: Final = {rule.id: rule for rule in CATALOGUE}
