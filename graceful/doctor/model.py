"""What the readers find and the rules judge: workloads, balancers, services, each with its place.

Frozen data with the field's own names, the same for every platform. Nothing here reads a file and
nothing judges. Seconds are floats, infinite where a platform never kills.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

__all__ = [
    "Balancer",
    "Check",
    "Command",
    "Config",
    "Fact",
    "Finding",
    "Grace",
    "GunicornConf",
    "Image",
    "Ingress",
    "Place",
    "Platform",
    "Probe",
    "Process",
    "Scene",
    "Server",
    "Service",
    "Workload",
]

T_co = TypeVar("T_co", covariant=True)

Platform = Literal["kubernetes", "compose", "systemd", "ecs", "dockerfile", "gunicorn"]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written: a file as it was named, and a line from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Fact(Generic[T_co]):
    """A value and where it is written."""

    value: T_co
    place: Place


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that will lose requests, or may: a row of the catalogue at one place."""

    id: str
    place: Place
    subject: str
    """Whose it is: 'Deployment web, container api'."""
    text: str
    """What is wrong, with the numbers."""
    fix: str
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a kubelet's."""

    place: Place
    kind: Literal["http", "tcp", "exec", "grpc"]
    path: Fact[str] | None
    port: str
    """As it is written, a name or a number."""
    period: float
    failures: int

    @property
    def seconds(self) -> float:
        """Seconds until it has failed often enough."""
        return self.period * self.failures


@dataclass(frozen=True, slots=True)
class Server:
    """A web server as a command line names it."""

    name: str
    """'uvicorn', 'gunicorn', …; 'development' for one that is not meant to be deployed."""
    place: Place
    options: Mapping[str, str]
    """Long option names without dashes, with their values; '' for a flag."""
    program: str = ""
    """What was typed, where `name` does not say it: 'flask run'."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a platform starts."""

    place: Place
    text: str
    server: Server | None
    shell: str = ""
    """The shell that stays process 1 and passes no signal on; empty = none."""
    settings: Mapping[str, str] | None = None
    """The options of `graceful run`, by the names of the settings; None = it is not used."""


@dataclass(frozen=True, slots=True)
class GunicornConf:
    """A gunicorn.conf.py, read and never run."""

    place: Place
    values: Mapping[str, Fact[object]]
    """Top-level assignments; `...` stands for a value that only running it would tell."""
    installs: Fact[Mapping[str, Fact[object]]] | None
    """The keywords of `install(globals(), …)` of graceful's, where it is called."""


@dataclass(frozen=True, slots=True)
class Image:
    """A Dockerfile's last stage."""

    place: Place
    command: Command | None
    entrypoint: tuple[str, ...]
    env: Mapping[str, Fact[str | None]]
    stop_signal: Fact[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One container or unit: what gets the signal."""

    name: str
    place: Place
    label: str = "container"
    image: str = ""
    command: Command | None = None
    arguments: tuple[str, ...] = ()
    """Only arguments were given: what they are given to is the image's."""
    env: Mapping[str, Fact[str | None]] = field(default_factory=dict[str, "Fact[str | None]"])
    """None = a value that is not in the file."""
    config_maps: tuple[str, ...] = ()
    readiness: Probe | None = None
    liveness: Probe | None = None
    pre_stop: Fact[float | None] | None = None
    """Seconds that the preStop hook sleeps; None = one of unknown length."""
    ports: Mapping[str, str] = field(default_factory=dict[str, str])
    """Port names, and the numbers as text; a number names itself."""
    grace: Grace | None = None
    """Of this container, where the platform sets it so (ECS)."""
    stop_signal: Fact[str] | None = None
    depends_on: tuple[str, ...] = ()
    native_sidecar: bool = False
    """Ends after the containers beside it: a restartable init container."""
    built: bool = False
    """Its image is built from a Dockerfile of the same project."""
    conf: GunicornConf | None = None


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds until SIGKILL, and the platform's name for them."""

    setting: str
    seconds: float
    place: Place
    written: bool
    """False: it is the platform's default, and `place` is where it would be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is stopped as one: a pod, a service, a unit, a task."""

    platform: Platform
    kind: str
    name: str
    place: Place
    grace: Grace | None
    """None = this file does not say how long the platform waits."""
    processes: tuple[Process, ...]
    replicas: int | None = None
    strategy: Fact[str] | None = None
    max_unavailable: Fact[str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: Mapping[str, Fact[str]] = field(default_factory=dict[str, "Fact[str]"])
    """Labels and annotations of a pod, by key; of a unit its [Service] settings."""
    fargate: bool = False

    @property
    def title(self) -> str:
        """How people call it."""
        return f"{self.kind} {self.name}".strip()

    def subject(self, process: Process) -> str:
        """Name one of the processes, where there is more than one to be meant."""
        if len(self.processes) == 1 and process.name in ("", self.name):
            return self.title
        return f"{self.title}, {process.label} {process.name}"


@dataclass(frozen=True, slots=True)
class Check:
    """An active health check of a balancer's."""

    place: Place
    http: bool
    path: Fact[str] | None
    seconds: float
    """From readiness that says 503 to the last new request, at worst."""
    sum: str
    """How that number comes about: 'inter 2 s × fall 3'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """One backend of a reverse proxy."""

    kind: Literal["haproxy", "nginx", "caddy", "alb"]
    name: str
    place: Place
    hosts: tuple[str, ...] = ()
    """Where it sends to, without ports."""
    check: Check | None = None
    blind: tuple[Place, ...] = ()
    """The servers that no active check looks at."""
    idle: Fact[float] | None = None
    """Seconds that it keeps an idle connection to a server; None = it keeps none, or unknown."""
    idle_setting: str = ""
    front_idle: Fact[float] | None = None
    """Seconds that it keeps an idle connection of a client's."""
    front_setting: str = ""
    by_ip: bool = False
    """It sends to pods themselves, which its provider's API has to take out (ALB)."""
    retries: Fact[str] | None = None
    """What keeps it from trying another server: text for people; None = nothing does."""

    @property
    def title(self) -> str:
        """How people call it."""
        return f"{'ALB' if self.kind == 'alb' else self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Service:
    """A Kubernetes Service."""

    name: str
    place: Place
    headless: bool
    grpc: bool
    selector: Mapping[str, str]
    notes: Mapping[str, Fact[str]]


@dataclass(frozen=True, slots=True)
class Ingress:
    """A Kubernetes Ingress."""

    name: str
    place: Place
    services: tuple[str, ...]
    class_name: str
    notes: Mapping[str, Fact[str]]


@dataclass(frozen=True, slots=True)
class Config:
    """A ConfigMap: what `envFrom` brings."""

    name: str
    values: Mapping[str, Fact[str | None]]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that was read, of all files together."""

    workloads: tuple[Workload, ...] = ()
    balancers: tuple[Balancer, ...] = ()
    services: tuple[Service, ...] = ()
    ingresses: tuple[Ingress, ...] = ()
    configs: tuple[Config, ...] = ()
    confs: tuple[GunicornConf, ...] = ()
    images: tuple[Image, ...] = ()

    def __add__(self, other: Scene) -> Scene:
        """Return what both have."""
        return Scene(
            self.workloads + other.workloads,
            self.balancers + other.balancers,
            self.services + other.services,
            self.ingresses + other.ingresses,
            self.configs + other.configs,
            self.confs + other.confs,
            self.images + other.images,
        )
