"""Reads the configuration that people have and tells what will lose requests at a stop.

    readers/     text of one format → facts with their places (`model`)
    assemble     what belongs together: a manifest, its image, its gunicorn.conf.py
    rules_*      facts → findings; pure
    catalogue    every rule: id, severity, title, story
    outputs      findings → text, JSON, GitHub annotations, SARIF

Files are data: nothing in them is executed, imported, expanded or constructed.
"""

from __future__ import annotations

from .catalogue import CATALOGUE, RULES, Rule
from .examine import Examination, examine
from .model import Finding, Place
from .source import FORMATS, Source, Unreadable, read

__all__ = [
    "CATALOGUE",
    "FORMATS",
    "RULES",
    "Examination",
    "Finding",
    "Place",
    "Rule",
    "Source",
    "Unreadable",
    "examine",
    "read",
]
