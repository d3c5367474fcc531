"""The verdict for CI systems: one JUnit test case for each thing that must not happen."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as xml

from ..result import Result, explain, findings

__all__ = ["junit"]


def junit(results: dict[str, Result]) -> str:
    """Return JUnit XML of results by name, as Jenkins, GitLab and GitHub's actions read it."""
    suites = xml.Element("testsuites", name="graceful rehearse")
    for name, result in results.items():
        suites.append(_suite(name, result))
    xml.indent(suites)
    return xml.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(name: str, result: Result) -> xml.Element:
    cases = list(_cases(result))
    suite = xml.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(bool(count) for _, count in cases)),
        errors="0",
        time=f"{result.seconds:.3f}",
    )
    text = "\n".join([*explain(result, limit=50), *findings(result)])
    for what, count in cases:
        case = xml.SubElement(suite, "testcase", classname=name, name=what, time="0")
        if count:
            failure = xml.SubElement(case, "failure", message=f"{count}: {result.verdict}")
            failure.text = _printable(text)
    return suite


def _cases(result: Result) -> Iterator[tuple[str, int]]:
    yield "no request is lost", result.lost
    yield "no message is lost", result.messages_lost
    yield "every stream is told to reconnect", result.streams_cut
    yield "every stream client comes back", result.stranded
    yield "no instance needs SIGKILL", result.killed
    if any(restart.fault for restart in result.restarts):
        yield "every fault is survived", result.faults_failed
    if result.signal != "SIGTERM":
        yield "readiness stays 200", result.not_ready
        yield "no old worker stays", result.stayed


def _printable(text: str) -> str:
    """XML 1.0 has no control characters, not even escaped; a client's error may."""
    return "".join(c if c in "\t\n\r" or c >= " " else "\N{REPLACEMENT CHARACTER}" for c in text)
