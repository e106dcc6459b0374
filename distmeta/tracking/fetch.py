"""Finds learners and tasks that were registered in MLflow."""

from __future__ import annotations

import hashlib
import re
import shutil
import urllib.parse
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from distmeta.config import DataConfig
from distmeta.errors import TrackingError
from distmeta.tracking.store import connect, find_artifacts, must_exist, user_errors
from distmeta.tracking.uri import check_store, mask

KINDS = ("learner", "task")
_REFERENCE = re.compile(r"models:/(?:(?P<model>m-[^/@]+)|(?P<name>[^/:@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+)))")


class Found(NamedTuple):
    """Where a registered model's files are, and the run that logged it."""

    location: str
    run_id: str | None


def fetch(uri: str, reference: str) -> Path:
    """The folder of a registered learner or task, on this machine. What comes from a server is kept in a cache.

    Args:
        uri: a resolved store.
        reference: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/NAME/latest`` or ``models:/m-ID``.

    Raises:
        TrackingError: there is no such model, or it was not registered by distmeta.
    """
    location = _find(uri, reference).location
    if location.startswith("file:"):
        return _inside(Path(urllib.parse.unquote(urllib.parse.urlsplit(location).path)), reference)
    name = hashlib.sha256(f"{mask(uri)} {location}".encode()).hexdigest()
    kept = DataConfig().cache_folder / "models" / name
    if not kept.exists():
        with user_errors(uri):
            _download(uri, location, kept)
    return _inside(kept, reference)


def run_of(uri: str, reference: str) -> str:
    """The MLflow run of a registered learner.

    Raises:
        TrackingError: there is no such model, or it has no run.
    """
    run_id = _find(uri, reference).run_id
    if not run_id:
        raise TrackingError(reference, "was registered without a run", "give a run directory")
    return run_id


def _find(uri: str, reference: str) -> Found:
    """Looks a model up."""
    named = _REFERENCE.fullmatch(reference)
    if not named:
        raise TrackingError(reference, "is no name of a model", "give models:/NAME@ALIAS or models:/NAME/VERSION")
    check_store(uri)
    must_exist(uri)
    with user_errors(uri):
        from mlflow.exceptions import MlflowException

        find_artifacts(uri, lambda remark: None)
        try:
            return _look_up(connect(uri), **named.groupdict())
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    remedy = "`distmeta ui` shows those there are; MLFLOW_TRACKING_URI names another store"
    raise TrackingError(reference, f"is not in {mask(uri)}", remedy)


def _look_up(client: Any, model: str | None, name: str | None, alias: str | None, version: str | None) -> Found:
    if model:
        logged = client.get_logged_model(model)
        return Found(logged.artifact_location, logged.source_run_id)
    if version == "latest":
        versions = client.get_registered_model(name).latest_versions
        version = str(max((int(found.version) for found in versions), default=0))
    found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    return Found(client.get_model_version_download_uri(name, found.version), found.run_id)


def _inside(model: Path, reference: str) -> Path:
    """The learner's or task's folder in a model."""
    for kind in KINDS:
        if (folder := model / "artifacts" / kind).is_dir():
            return folder
    raise TrackingError(reference, "was not registered by distmeta", "register a run with `distmeta register RUN`")


def _download(uri: str, location: str, kept: Path) -> None:
    """Downloads a model aside, then renames it."""
    from mlflow.artifacts import download_artifacts

    aside = kept.with_name(f".{kept.name}.{uuid.uuid4().hex}")
    try:
        found = download_artifacts(artifact_uri=location, dst_path=str(aside), tracking_uri=uri)
        if not kept.exists():  # another process may have been first
            Path(found).rename(kept)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
