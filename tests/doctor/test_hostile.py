"""What nobody means well with: it ends with one clear line, in bounded time, and nothing runs."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import process_time

import pytest

from graceful.doctor import Source, Unreadable, examine, read
from graceful.doctor.readers import READERS
from graceful.doctor.source import MAX_BYTES, MAX_OTHERS
from graceful.doctor.yamltree import MAX_CHARACTERS, MAX_NODES

POD = "kind: Pod\n"


def laughs(levels: int) -> str:
    """Nine aliases on each level stand for nine times as many below."""
    rows = [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([POD + "a0: &a0 [x]", *rows])


REFUSED: Mapping[str, tuple[str, str, str]] = {
    "aliases that explode": ("kubernetes", laughs(12), "aliases counted in full"),
    "an alias within itself": ("kubernetes", POD + "a: &a [*a]\n", "stands for nothing, or itself"),
    "an alias to nothing": ("kubernetes", POD + "a: *b\n", "stands for nothing"),
    "a tag that runs something": (
        *("kubernetes", POD + "a: !!python/object/apply:os.system ['exit 3']\n"),
        "would construct an object",
    ),
    "a tag by its whole name": (
        *("compose", "services: !<tag:yaml.org,2002:python/name:os.system> x\n"),
        "would construct an object",
    ),
    "brackets": ("kubernetes", POD + "a: " + "[" * 100_000, "nested deeper"),
    "braces": ("ecs", "{a: " * 50_000, "nested deeper"),
    "dashes": ("kubernetes", POD + "a:\n  " + "- " * 100_000, "nested deeper"),
    "many nodes": ("kubernetes", POD + "a: [" + "1," * MAX_NODES + "]", "nodes"),
    "many documents": ("kubernetes", f"---\n{POD}" * MAX_NODES, "nodes"),
    "one long document": ("kubernetes", POD + "# x\n" * MAX_CHARACTERS, "characters"),
    "services that extend one of many variables": (
        "compose",
        f"services:\n  a: {{environment: [{','.join(f'A{i}=1' for i in range(5000))}]}}\n"
        + "".join(f"  b{i}: {{extends: a}}\n" for i in range(900)),
        "too many variables",
    ),
    "lists in lists": ("kubernetes", "{kind: List, items: [" * 6 + "]}" * 6, "within lists"),
    "half a string": ("ecs", '{"containerDefinitions": [{"name": "x', "is not YAML"),
    "a control character": ("kubernetes", POD + "a: \x01\n", "is not YAML"),
    "a template": ("kubernetes", POD + "name: {{ .Values.x }}\n{{- end }}\n", "helm template"),
    "nested nginx": ("nginx", "a {\n" * 1000, "nested deeper"),
    "nginx on one line": ("nginx", "{" * 10_000, "nested deeper"),
    "nginx without an end": ("nginx", "upstream a { server b;", "is not nginx"),
    "a quote of nginx's": ("nginx", "a 'b", "never ends"),
    "nested Caddy": ("caddy", "a {\n" * 1000, "nested deeper"),
    "too many of Caddy's braces": ("caddy", "a {\n}\n}\n", "a } too many"),
    "nested Python": ("gunicorn", "a = " + "(" * 1000, "is not Python"),
    "a chain of Python": ("gunicorn", "a = " + "-" * 50_000 + "1", "deep"),
    "long Python": ("gunicorn", "a = 1\n" * 9_999, "Python"),
    "longer Python": ("gunicorn", "a = 1\n" * 30_000, "Python"),
    "no Python": ("gunicorn", "def f(:\n", "is not Python"),
}


@pytest.mark.timeout(30)  # each takes about a second at most; a loop would take for ever
@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_one_line(case: str) -> None:
    """With the name of the file, and a line where there is one."""
    format_, text, said = REFUSED[case]
    with pytest.raises(Unreadable, match=said) as refused:
        examine([Source("hostile", text, format_)])
    assert str(refused.value).startswith("hostile:")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_explodes_takes_no_memory() -> None:
    """The aliases above would be 9 ** 11 nodes, and the brackets a deep recursion."""
    tracemalloc.start()
    try:
        for format_, text, _ in (REFUSED["aliases that explode"], REFUSED["braces"]):
            with pytest.raises(Unreadable):
                examine([Source("hostile", text, format_)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 * 1024**2


MUCH: Mapping[str, tuple[str, str]] = {
    "upstreams": (
        "nginx",
        "http {"
        + "".join(f"upstream u{i}{{server b;keepalive_timeout 1;}}\n" for i in range(3000))
        + "server {"
        + "".join(f"location /{i}{{proxy_pass http://u{i};}}\n" for i in range(3000))
        + "}}",
    ),
    "backends with defaults": (
        "haproxy",
        "defaults\n"
        + "".join(f" option o{i}\n" for i in range(6000))
        + "".join(f"backend b{i}\n server s a:1\n" for i in range(6000)),
    ),
    "services in a chain": (
        "compose",
        "services:\n" + "".join(f"  a{i}: {{extends: a{i + 1}}}\n" for i in range(3000)),
    ),
}


@pytest.mark.timeout(30)  # about a second each; what grows with the square took half a minute
@pytest.mark.parametrize("case", MUCH)
def test_much_of_it_takes_no_longer_than_it_should(case: str) -> None:
    format_, text = MUCH[case]
    began = process_time()
    examine([Source("much", text, format_)])
    assert process_time() - began < 10


ODD: Mapping[str, tuple[str, ...]] = {
    "kubernetes": (
        "",
        "[]",
        "x",
        "kind: [Pod]",
        "kind: Pod\nspec: 1\n",
        "kind: Pod\nspec: {containers: {a: b}}\n",
        "kind: Pod\nspec: {containers: [1, {command: x, args: [[y]], env: 3, ports: [1]}]}\n",
        "kind: Pod\nspec: {containers: [{readinessProbe: 1, livenessProbe: {httpGet: 3}}]}\n",
        "kind: Pod\nspec: {containers: [{lifecycle: {preStop: {sleep: {seconds: x}}}}]}\n",
        "kind: Deployment\nspec: {replicas: .inf, strategy: [x]}\n",
        "kind: Deployment\nspec: {template: {spec: {terminationGracePeriodSeconds: .nan}}}\n",
        "kind: Service\nspec: {clusterIP: None, ports: x, selector: [a]}\n",
        "kind: Ingress\nspec: {ingressClassName: alb, rules: [1, {http: {paths: [2]}}]}\n",
        "kind: ConfigMap\ndata: [GRACEFUL_X]\n",
        'kind: Pod\nmetadata: {name: "\\ud800"}\n',
        "%YAML 1.2\n---\nkind: Pod\n...\n---\n",
        "kind: Pod\n? [complex, key]\n: 1\n",
    ),
    "compose": (
        "services: []",
        "services: {a: 1, b: [x], c: {command: {a: b}, environment: 3, ports: 80}}",
        "services: {a: {command: 'uvicorn \"x', stop_grace_period: 5}}",
        "services: {a: {entrypoint: [[x]], environment: [1, [2]], ports: [[1]]}}",
    ),
    "ecs": (
        "[[[]]]",
        '{"containerDefinitions": {"a": 1}}',
        '{"containerDefinitions": [1, [], {"command": "x", "dependsOn": 3}]}',
    ),
    "systemd": (
        "",
        "x\n=\n[\n[]\n",
        "[Service]\nEnvironment='\nTimeoutStopSec=soon\nKillMode=\nExecStart=",
        "[Service]\nExecStart=\\\n\\\n",
    ),
    "dockerfile": ("", "FROM\nCMD", "FROM x\nCMD [1,{}]\nENTRYPOINT [", "CMD []\nENTRYPOINT [1]\n"),
    "gunicorn": ("", "a.b = 1\nc, = 1,\n", "x = '\\d'\n", "install(**x)\n"),
    "haproxy": (
        "",
        "backend\nserver\ndefaults from\nlisten x from y\n server\n option\n timeout\n no\n",
        "backend a\n server a b check inter x fall y\n timeout connect\n",
        "listen a\n server a 1:2 'x\n server-template a\n http-check send uri\n",
    ),
    "nginx": (
        "",
        "upstream;",
        "upstream { server; keepalive; }",
        "http { location / { proxy_pass; } }",
    ),
    "caddy": (
        "",
        "reverse_proxy",
        "{\n}\n",
        "reverse_proxy a b {\n health_uri\n health_interval x\n health_fails z\n}\n",
    ),
}


@pytest.mark.parametrize("format_", READERS)
def test_what_makes_no_sense_is_no_crash(format_: str) -> None:
    """It is taken for what can be made of it, or refused; every format has its odd ones."""
    for text in ODD[format_]:
        with suppress(Unreadable):
            examine([Source("odd", text, format_)])


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    """Neither Python nor commands nor what a tag names; `include` and such are not followed."""
    trace = tmp_path / "trace"
    made = f"open({str(trace)!r}, 'w')"
    shell = f"touch {trace}"
    for format_, text in {
        "gunicorn": f"import os\n{made}\nworkers = os.system({shell!r}) or {made}\n",
        "compose": f"services: {{a: {{command: 'sh -c \"$({shell}); `{shell}`\"'}}}}\n",
        "dockerfile": f"FROM x\nRUN {shell}\nCMD $({shell})\n",
        "systemd": f"[Service]\nExecStart=/bin/sh -c '{shell}'\n",
        "nginx": f"include {tmp_path}/*;\nhttp {{ include /etc/passwd; }}\n",
    }.items():
        examine([Source(format_, text, format_)])
    assert not trace.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"kind: Pod\n\0", "binary"),
        (b"\x7fELF\x02\x01\x01\0\0", "binary"),
        (b"kind: Pod\nname: caf\xe9\n", "hostile:2: is not UTF-8"),
        (b"\xff\xfek\0i", "not UTF-8|no format"),
        (b"\xff\xfe\0", "not UTF-8"),
        (b"hello\n", "no format that is known"),
        (b"", "hostile: is empty"),
        (b" \n\n", "hostile: is empty"),
        (b"kind: Pod\n" + b"#" * MAX_BYTES, "larger than 4,096 KiB"),
        (b"[Service]\n" + b"#" * MAX_OTHERS, "larger than 256 KiB"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, said: str) -> None:
    """Before anything looks into them."""
    with pytest.raises(Unreadable, match=said):
        read(io.BytesIO(data), "hostile")


def test_no_more_is_read_than_the_limit() -> None:
    """/dev/zero has no end."""

    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert size >= 0
            self.taken += size
            return b"\0" * size

    endless = Endless()
    with pytest.raises(Unreadable):
        read(endless, "zero")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert endless.taken <= MAX_BYTES + 1
