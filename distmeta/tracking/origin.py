"""Where a run comes from: user, source file, git commit, data. MLflow's UI shows them with the run."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distmeta.config.base import is_address
from distmeta.tracking.uri import mask

GIT_SECONDS = 5.0


class Dataset(NamedTuple):
    """One split of a run's data, as plain JSON.

    `source` is the path or address as configured, `subset` a hub data set's configuration, `digest` a hash of the
    content, `columns` those that were read, `profile` counts, and `context` the split.
    """

    name: str
    source: str
    subset: str | None
    digest: str
    columns: list[str]
    profile: dict[str, int]
    context: str


def origin(source: str | None) -> dict[str, str]:
    """Tags of a new run, as far as they are known.

    Args:
        source: the run's file of settings, as typed. None: the script that runs.
    """
    script = sys.argv[0] if sys.argv else ""
    named = source or (script if script.endswith(".py") and Path(script).is_file() else None)
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": mask(named)} if named else {}
    with contextlib.suppress(KeyError, OSError):  # a user without a name, as in some containers
        tags["mlflow.user"] = getpass.getuser()
    for folder in dict.fromkeys([Path(named or "").absolute().parent, Path.cwd()]):
        if commit := _commit(folder):
            return {**tags, "mlflow.source.git.commit": commit}
    return tags


def send_dataset(client: Any, run_id: str, dataset: Dataset) -> None:
    """Adds a data set to a run."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    kind, source = _source(dataset)
    columns = [{"type": "string", "name": name, "required": True} for name in dataset.columns]
    entity = Entity(
        name=mask(dataset.name)[:500],
        digest=dataset.digest[:36],  # as long as MLflow keeps
        source_type=kind,
        source=json.dumps(source),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(dataset.profile) if dataset.profile else None,
    )
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])])


def _source(dataset: Dataset) -> tuple[str, Mapping[str, Any]]:
    """The kind of source by MLflow's name, and what MLflow keeps of it."""
    source = mask(dataset.source)
    if source.startswith("hub:"):
        return "hugging_face", {"path": source.removeprefix("hub:"), "config_name": dataset.subset}
    if is_address(source):
        scheme = source.partition(":")[0]
        return ("http", {"url": source}) if scheme in ("http", "https") else (scheme, {"uri": source})
    if Path(source).is_absolute():
        return "local", {"uri": source}
    return "code", {"tags": {"mlflow.source.name": source}}  # of a package, or generated


def _commit(folder: Path) -> str | None:
    """The commit of the checkout that a folder is in."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return None
    return found.stdout.strip()
