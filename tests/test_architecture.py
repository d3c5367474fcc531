"""The floors of the library, read from its source: imports go one way, and waiting has one home.

Nothing is imported here, so a missing extra hides nothing. The rules look at every file that is
there; `WAITS` and the like are exact, so an exception that is no longer needed fails as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CLOCK_AND_WORLD = frozenset(
    {"time", "datetime", "sched", "random", "asyncio", "anyio", "threading", "multiprocessing"}
    | {"concurrent", "queue", "subprocess", "signal", "socket", "select", "selectors", "os", "sys"}
    | {"io", "pathlib", "logging", "structlog", "warnings"}
)
"""What the core never touches: clocks, randomness, waiting, the process and the outside."""

RUNTIME = {"anyio", "asgiref", "structlog"}
"""The distribution's dependencies. Everything else is an extra, and has a module of its own."""

EXTRAS = {
    "graceful._trio": {"trio"},
    "graceful.cli": {"click", "rich"},
    "graceful.doctor": {"crossplane", "rich", "ruamel"},
    "graceful.planning": {"jinja2", "rich"},
    "graceful.rehearsal": {"aiohttp", "click", "jinja2", "psutil", "rich"},
    "graceful.testing.plugin": {"pytest", "rich"},
}

WAITS = {
    "graceful._asgi_http": {"move_on_after": "a client that reads nothing gets no last words"},
    "graceful._asgi_websocket": {
        "fail_after": "a farewell of the user's may hang",
        "move_on_after": "a client that reads nothing gets no last words",
        "wait": "an app must not return before a close that its return would replace",
    },
    "graceful.backstop": {
        "sleep": "the very end: the C library sets its alarm a moment after the signal",
        "aio_suspend": "the wake-up's thread awaits the next signal together with the C library",
    },
    "graceful.driver": {
        "wait": "the only file that walks through a stop",
        "move_on_after": "until the next step of the timeline is due; hooks have a limit each",
    },
    "graceful.integrations.granian": {
        "sleep": "until granian listens, which is a line in its code and tells nobody",
        "wait": "a worker ends when its connections are gone",
        "move_on_after": "which a client that reads nothing could hold up",
        "call_later": "for a moment the event loop may still tell of a signal that came before",
    },
    "graceful.integrations.granian_sockets": {
        "sleep": "another thread empties the accept queue, and nobody tells when"
    },
    "graceful.integrations.grpc.aio": {"fail_after": "a farewell of the user's may hang"},
    "graceful.integrations.grpc.health": {"sleep": "checks are asked once a second"},
    "graceful.integrations.grpc.serving": {
        "result": "the main thread waits for what runs on the loop of a threaded server",
        "wait": "and for grpc's own stop, which has its limit",
        "sleep": "new RPCs are accepted until the linger is over",
    },
    "graceful.integrations.gunicorn_workers": {
        "call_later": "until an asgi worker listens, which tells nobody",
        "timeout": "a client has a limit for closing after a response that says so",
        "wait": "gevent's main greenlet sleeps until it is woken, where gunicorn's looks once a "
        "second",
        "sleep": "a greenlet that has nothing left to do gets a moment to be over",
        "move_on_after": "gthread's main thread is asked to close the listeners, and may hang",
    },
    "graceful.integrations.hypercorn": {
        "sleep": "a worker asks its parent's event, in a thread: to wait for it would hang the "
        "parent when this process is killed meanwhile",
        "wait": "hypercorn's own shutdown waits until the drain is over",
    },
    "graceful.integrations.hypercorn_parent": {
        "wait": "hypercorn's parent waits for its workers, and this takes the place of its call",
        "join": "of a worker that has ended",
    },
    "graceful.lifecycle": {
        "wait": "`wait_draining` is how user code waits for the drain; a worker without a loop of "
        "its own waits for its clean-up hooks, which have their limit"
    },
    "graceful.integrations.daphne": {
        "sleep": "Twisted has no event for a connection whose last byte has gone out",
        "timeout": "a client that reads nothing holds the end no longer than the drain may last",
    },
    "graceful.integrations.waitress": {
        "wait": "the drain waits until the main thread has closed the listeners"
    },
    "graceful.parent": {
        "join": "its thread gets a moment to say what it is saying when the server has stopped"
    },
    "graceful.probe_server": {
        "get": "a probe's thread waits for checks that run on the loop, with their time limit",
        "join": "the port is free again when `close` returns",
        "wait": "a listener out of descriptors tries again a moment later",
    },
    "graceful.probes": {
        "wait": "one round of checks at a time, others wait for its answer",
        "move_on_after": "a check has a time limit",
        "result": "of a check that is over",
        "wait_for": "a WSGI server's thread waits for checks, which have their time limit",
    },
    "graceful.signals": {
        "get": "its thread sleeps until a signal has been caught",
        "join": "the thread is over before handlers are given back",
    },
    "graceful.testing.asgi": {
        "result": "of a lifespan that is over",
        "wait": "an app in memory shuts down when its calls have returned",
    },
    "graceful.testing.process": {
        "result": "of a stop that has failed",
        "sleep": "time in memory passes when it is told to",
        "wait": "a test waits for a phase, in virtual time",
    },
    "graceful.threads": {
        "wait": "the driver waits for a hook in a thread, as anyio's `run_sync` does",
        "result": "of a hook that is over",
    },
    "graceful.watchdog": {
        "wait": "its thread sleeps until the process has to be gone",
        "join": "a bare write to stderr gets a moment",
    },
}
"""Who else than the driver sleeps or waits, how, and why. Add a line only with a reason."""

TOOLS = ("cli", "doctor", "planning", "rehearsal", "testing")
"""Packages that people use beside the library; nothing of the library imports them."""

LOAD_TOOL = "graceful.rehearsal"
"""A load generator waits for a living: the rule about waiting is not for this package."""

WAITING = frozenset(
    {"sleep", "sleep_forever", "sleep_until", "wait", "wait_for", "pause", "result", "aio_suspend"}
    | {"move_on_after", "move_on_at", "fail_after", "fail_at", "timeout", "timeout_at"}
    | {"call_later", "call_at", "Timer", "sigwait", "sigtimedwait", "run_until_complete"}
)


@dataclass(frozen=True)
class Import:
    """One imported module, absolute, and whether the import runs when the file is loaded."""

    name: str
    at_top: bool


class Module:
    """One source file, parsed and named as it is imported."""

    def __init__(self, name: str, source: str, *, package: bool = False) -> None:
        self.name = name
        self.source = source
        self.package = package

    @cached_property
    def tree(self) -> ast.Module:
        """Parsed when it is first looked at: each process of the suite reads this list."""
        return ast.parse(self.source, self.name)

    @property
    def floor(self) -> str:
        """'core', 'integrations', a tool, or 'shells' for `graceful/*.py`."""
        second = self.name.split(".")[1] if "." in self.name else ""
        return second if second in ("core", "integrations", *TOOLS) else "shells"

    @cached_property
    def imports(self) -> list[Import]:
        """Every import in the file, relative ones resolved, `TYPE_CHECKING` blocks left out."""
        return list(self._imports([self.tree], at_top=True))

    def _imports(self, nodes: Iterable[ast.AST], *, at_top: bool) -> Iterator[Import]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, at_top) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                # `from .core import phases` names a module as well as `from .core.phases import x`.
                yield Import(base, at_top)
                yield from (Import(f"{base}.{alias.name}", at_top) for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from self._imports(node.orelse, at_top=at_top)
            else:
                function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                children = ast.iter_child_nodes(node)
                yield from self._imports(children, at_top=at_top and not function)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        keep = len(parts) - node.level + (1 if self.package else 0)
        return ".".join([*parts[:keep], *([node.module] if node.module else [])])

    def imported(self, prefix: str, *, at_top: bool | None = None) -> set[str]:
        """The imported names at or below `prefix`."""
        return {
            i.name
            for i in self.imports
            if (i.name == prefix or i.name.startswith(prefix + "."))
            and (at_top is None or i.at_top is at_top)
        }

    @cached_property
    def waits(self) -> set[str]:
        """The calls in the file that sleep, wait or set a time limit."""
        return {name for node in ast.walk(self.tree) if (name := self._waits_by(node))}

    def _waits_by(self, node: ast.AST) -> str | None:
        if not isinstance(node, ast.Call):
            return None
        function = node.func
        name = str(getattr(function, "attr", None) or getattr(function, "id", ""))
        arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
        if name == "sleep" and arguments == [0]:
            return None  # only lets others have a turn
        if name == "get" and not node.args and self.imported("queue"):
            return name
        if name == "join" and isinstance(function, ast.Attribute):
            # A thread's: without an argument, or with a number. Strings and apps join something.
            seconds = node.args and isinstance(node.args[0], ast.BinOp)
            numbers = any(isinstance(value, int | float) for value in arguments)
            bare = not node.args and not node.keywords
            timed = any(k.arg == "timeout" for k in node.keywords)
            return name if bare or timed or seconds or numbers else None
        return name if name in WAITING else None

    @cached_property
    def exported(self) -> list[str]:
        """The names in `__all__`."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                    return list(ast.literal_eval(node.value))
        return []

    @cached_property
    def bound(self) -> set[str]:
        """The names that exist once the file has been loaded."""
        return set(_bound(self.tree.body))


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (a.asname or a.name.split(".")[0] for a in node.names)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
            case ast.If():
                yield from _bound([*node.body, *node.orelse])
            case ast.Try():
                yield from _bound([*node.body, *node.orelse, *node.finalbody])
                for handler in node.handlers:
                    yield from _bound(handler.body)
            case _:
                pass


def read(path: Path) -> Module:
    """Parse one file of the checkout under the name that it is imported by."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "integrations":
        parts.insert(0, "graceful")
    package = parts[-1] == "__init__"
    return Module(
        ".".join(parts[:-1] if package else parts),
        path.read_text(encoding="utf-8"),
        package=package,
    )


def files() -> list[Path]:
    """Every source file; `graceful/integrations` is a link to the folder and not walked twice."""
    link = ROOT / "graceful" / "integrations"
    ours = (p for p in (ROOT / "graceful").rglob("*.py") if link not in p.parents)
    return sorted([*ours, *(ROOT / "integrations").rglob("*.py")])


MODULES = [read(path) for path in files()]


def on(*floors: str) -> list[Module]:
    return [module for module in MODULES if module.floor in floors]


def by_name(module: Module) -> str:
    return module.name


everywhere = pytest.mark.parametrize("module", MODULES, ids=by_name)


def test_the_floors_are_all_there() -> None:
    """The rules below look at real files: an empty floor would pass everything."""
    names = {module.name for module in MODULES}
    assert {"graceful", "graceful.core.phases", "graceful.driver"} <= names
    assert "graceful.integrations.uvicorn" in names
    assert len(names) == len(MODULES), "no file is read under two names"


# -- imports -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", on("core"), ids=by_name)
def test_the_core_imports_nothing_of_the_floors_above(module: Module) -> None:
    """Of graceful the core knows only itself."""
    assert module.imported("graceful") == module.imported("graceful.core")


@pytest.mark.parametrize("module", on("core"), ids=by_name)
def test_the_core_touches_neither_clock_nor_world(module: Module) -> None:
    """No clock, randomness, event loop, signal, log or thread, and nothing to install."""
    roots = {i.name.split(".")[0] for i in module.imports} - {"graceful"}
    assert not roots & CLOCK_AND_WORLD
    assert roots <= sys.stdlib_module_names


@pytest.mark.parametrize("module", on("shells", "core"), ids=by_name)
def test_nothing_below_imports_an_integration_when_it_is_loaded(module: Module) -> None:
    """An integration is loaded only when its server or framework is present."""
    assert not module.imported("graceful.integrations", at_top=True)


@pytest.mark.parametrize("module", on("shells", "core", "integrations"), ids=by_name)
def test_nobody_below_knows_the_tools(module: Module) -> None:
    """The command line, the rehearsal and their like are used by people, not by the library."""
    for tool in TOOLS:
        assert not module.imported(f"graceful.{tool}")


@pytest.mark.parametrize("module", on("integrations"), ids=by_name)
def test_an_integration_imports_only_downwards(module: Module) -> None:
    """Shells and core, its own server or framework; never a sibling's."""
    siblings = module.imported("graceful.integrations") - {"graceful.integrations"}
    assert {name for name in siblings if _family(name) != _family(module.name)} == set()


def _family(name: str) -> str:
    """The integration that a module belongs to: a package (`django.apps`), or `gunicorn_conf`."""
    return name.split(".")[2].partition("_")[0]


@pytest.mark.parametrize("module", on("rehearsal"), ids=by_name)
def test_the_rehearsal_stands_alone(module: Module) -> None:
    """It judges any server's behaviour from outside, so it knows nothing of the library."""
    assert module.imported("graceful") == module.imported("graceful.rehearsal")


@pytest.mark.parametrize("module", on("shells", "cli", "rehearsal"), ids=by_name)
def test_only_dependencies_are_imported_when_a_module_is_loaded(module: Module) -> None:
    """What an extra brings is imported by the module that needs it, not by the library."""
    allowed = RUNTIME | {"graceful"}
    for package, extras in EXTRAS.items():
        if module.name.startswith(package):
            allowed |= extras
    roots = {i.name.split(".")[0] for i in module.imports if i.at_top}
    assert roots - sys.stdlib_module_names <= allowed


@pytest.mark.parametrize("module", on("shells", "core", "integrations"), ids=by_name)
def test_a_module_of_an_extra_is_loaded_only_by_who_needs_it(module: Module) -> None:
    """A plain import in its own module, which nothing else imports when it is loaded."""
    for extra in EXTRAS:
        assert module.name.startswith(extra) or not module.imported(extra, at_top=True)


def test_imports_have_no_circles() -> None:
    """Downwards means that the modules can be put in an order in which each one is loaded once."""
    names = {module.name for module in MODULES}
    needs = {
        m.name: {i.name for i in m.imports if i.at_top and i.name in names and i.name != m.name}
        for m in MODULES
    }
    for module in MODULES:
        if module.package:  # a package file is loaded on the way to whatever it holds
            for needed in needs.values():
                needed.discard(module.name)
    while needs:
        free = {name for name, needed in needs.items() if not needed & needs.keys()}
        assert free, f"a circle among {sorted(needs)}"
        needs = {name: needed for name, needed in needs.items() if name not in free}


# -- waiting -------------------------------------------------------------------------------


@everywhere
def test_only_the_driver_and_a_few_with_a_reason_wait(module: Module) -> None:
    """A module that sleeps, waits or sets a time limit is listed in `WAITS`, with that call."""
    if module.name.startswith(LOAD_TOOL):
        return
    assert module.waits == set(WAITS.get(module.name, {}))


def test_the_list_of_exceptions_is_no_longer_than_needed() -> None:
    """Each entry belongs to a module that exists, and has a reason."""
    assert {*WAITS, *EXTRAS} <= {module.name for module in MODULES}
    assert all(reason for calls in WAITS.values() for reason in calls.values())
    assert not any(name.startswith("graceful.core") for name in WAITS)


# -- what every module has -----------------------------------------------------------------


@everywhere
def test_every_module_says_what_it_is_for(module: Module) -> None:
    """Its docstring comes first (an empty package marker has nothing to explain)."""
    assert not module.source.strip() or ast.get_docstring(module.tree)


@everywhere
def test_every_exported_name_exists(module: Module) -> None:
    """`__all__` promises nothing that the module does not have, and nothing twice."""
    assert set(module.exported) <= module.bound
    assert len(set(module.exported)) == len(module.exported)


# -- the rules can fail --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", {"time"}),
        ("import os.path as p", {"os.path"}),
        ("from time import sleep", {"time", "time.sleep"}),
        ("def f():\n    import time", {"time"}),
        ("from .phases import Phase", {"graceful.core.phases", "graceful.core.phases.Phase"}),
        ("from ..driver import Driver", {"graceful.driver", "graceful.driver.Driver"}),
        ("from .. import driver", {"graceful", "graceful.driver"}),
        ("try:\n    import time\nexcept ImportError:\n    pass", {"time"}),
        ("if TYPE_CHECKING:\n    import time\nelse:\n    import os", {"os"}),
        ("# import time", set[str]()),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, found: set[str]) -> None:
    """In functions and branches, relative or not; those for type checkers do not run."""
    module = Module("graceful.core.sample", source)
    assert {i.name for i in module.imports} == found


def test_an_import_in_a_function_does_not_run_at_the_top() -> None:
    """It is how a shell loads an integration, once its server has been found."""
    module = Module("graceful.servers", "def f():\n    from .integrations import uvicorn")
    assert module.imported("graceful.integrations")
    assert not module.imported("graceful.integrations", at_top=True)
    loaded = Module("graceful.servers", "from .integrations import uvicorn")
    assert loaded.imported("graceful.integrations", at_top=True)
    package = Module("graceful", "from .integrations import uvicorn", package=True)
    assert package.imported("graceful.integrations.uvicorn", at_top=True)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("time.sleep(1)", {"sleep"}),
        ("sleep(0.1)", {"sleep"}),
        ("asyncio.sleep(0)", set[str]()),
        ("event.wait(5)", {"wait"}),
        ("with move_on_after(3): pass", {"move_on_after"}),
        ("thread.join()", {"join"}),
        ("thread.join(1.0)", {"join"}),
        ("thread.join(LIMIT / 2)", {"join"}),
        ("thread.join(timeout=x)", {"join"}),
        ("', '.join(names)", set[str]()),
        ("lifecycle.join(member)", set[str]()),
        ("import queue\nq.get()", {"get"}),
        ("import queue\nd.get('x')", set[str]()),
        ("variable.get()", set[str]()),
    ],
)
def test_waiting_is_told_from_what_only_sounds_like_it(source: str, found: set[str]) -> None:
    """Sleeps, waits, limits and joined threads; not strings that are joined."""
    assert Module("graceful.sample", source).waits == found


def test_exported_names_are_looked_up_in_every_kind_of_binding() -> None:
    """Imports, assignments, functions and classes, also in branches."""
    module = Module(
        "graceful.sample",
        "__all__ = ['a', 'b', 'C', 'd', 'e', 'f', 'missing']\n"
        "from x import a\nimport b.c\nclass C: ...\nd, (e, _) = 1, (2, 3)\n"
        "try:\n    f: int = 1\nexcept NameError:\n    pass\n",
    )
    assert set(module.exported) - module.bound == {"missing"}
