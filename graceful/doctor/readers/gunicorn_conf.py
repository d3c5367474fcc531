"""gunicorn.conf.py: its assignments and its call of graceful's `install`, by `ast`; never run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Final

from ..model import Fact, GunicornConf, Place, Scene
from ..source import Source, Unreadable

__all__ = ["scene"]

MAX_NODES: Final = 20_000
MAX_CHARACTERS: Final = 60_000


def scene(source: Source) -> Scene:
    """Return the configuration.

    Raises:
        Unreadable: it is not Python, or too much of it.
    """
    tree = _parsed(source)
    values: dict[str, Fact[object]] = {}
    for name, value, line in _assignments(tree.body):
        values[name] = Fact(_constant(value), Place(source.name, line))
    installs = next((_keywords(call, source.name) for call in _installs(tree)), None)
    return Scene(confs=(GunicornConf(Place(source.name, 1), values, installs),))


def _parsed(source: Source) -> ast.Module:
    if len(source.text) > MAX_CHARACTERS:
        raise Unreadable(source.name, f"more than {MAX_CHARACTERS:,} characters of Python")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its string literals, at compile time
            tree = ast.parse(source.text, source.name)
    except SyntaxError as error:
        raise Unreadable(source.name, f"is not Python: {error.msg}", error.lineno) from None
    except (ValueError, RecursionError, MemoryError):
        raise Unreadable(source.name, "is nested too deeply to be read") from None
    if sum(1 for _ in zip(ast.walk(tree), range(MAX_NODES), strict=False)) == MAX_NODES:
        raise Unreadable(source.name, f"more than {MAX_NODES:,} nodes of Python")
    return tree


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr, int]]:
    """Yield top-level assignments; those in a branch may or may not happen, and are unknown."""
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value, node.lineno)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _pairs(node.target, node.value, node.lineno)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id, ast.Name("unknown"), inner.lineno


def _pairs(target: ast.expr, value: ast.expr, line: int) -> Iterator[tuple[str, ast.expr, int]]:
    if isinstance(target, ast.Name):
        yield target.id, value, line
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=False):
            yield from _pairs(one, other, line)


def _constant(node: ast.expr) -> object:
    """Return a literal's value, `...` for what only running it would tell."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _constant(node.operand)
        return -inner if isinstance(inner, int | float) else ...
    known = isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None)
    return node.value if known and isinstance(node, ast.Constant) else ...


def _installs(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield calls of a function `install` that came from graceful's integration."""
    names = _names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def _names(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "graceful.integrations":
            found |= {f"{a.asname or a.name}.install" for a in node.names if a.name == "gunicorn"}
        elif isinstance(node, ast.ImportFrom) and node.module == "graceful.integrations.gunicorn":
            found |= {a.asname or a.name for a in node.names if a.name == "install"}
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name == "graceful.integrations.gunicorn":
                    found.add(f"{a.asname or a.name}.install")
    return found


def _keywords(call: ast.Call, file: str) -> Fact[dict[str, Fact[object]]]:
    given = {
        keyword.arg: Fact(_constant(keyword.value), Place(file, keyword.value.lineno))
        for keyword in call.keywords
        if keyword.arg is not None
    }
    return Fact(given, Place(file, call.lineno))
