"""Learners and tasks as MLflow models: logged with a run, registered by name.

MODEL/MLmodel, requirements.txt, …     what MLflow writes: signature, input example, versions of packages
      served.py                        the code that answers requests: see distmeta.tracking.served
      artifacts/learner/ or task/      the learner or task, as it was saved
                package.zip            this package, which a fresh environment gets from nowhere else
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from distmeta.errors import ConfigError
from distmeta.storage import SUMS
from distmeta.tracking import private
from distmeta.tracking.store import as_sqlalchemy, connect, experiment_id, find_artifacts, user_errors
from distmeta.tracking.uri import check_store

PREFIX = "models:/"
DIGEST_TAG = "distmeta.sha256"  # of a learner's or task's SHA256SUMS
# What a learner imports. MLflow itself needs more.
PACKAGES = ("mlflow", "numpy", "pyarrow", "pydantic", "PyYAML", "safetensors", "scipy", "tokenizers", "torch")


class Content(NamedTuple):
    """What a model is made of, as plain JSON.

    `folder` holds the learner or the task (`kind`), `inputs` are an example of what it is asked, `outputs` what it
    answers, `tags` and `packages` what else is stored with it and needed for it.
    """

    folder: str
    kind: str
    inputs: list[Any]
    outputs: list[Any]
    tags: dict[str, str]
    packages: list[str]


class Registered(NamedTuple):
    """A version of a registered model. `uri` is ``models:/NAME/VERSION``."""

    name: str
    version: str
    alias: str | None
    uri: str


def check_names(name: str, alias: str | None) -> None:
    """Refuses names that MLflow does not take, or reads as something else.

    Raises:
        ConfigError: it names the option.
    """
    if name != name.strip() or not re.fullmatch(r"(?!m-|\.+$)[^/:@?#%\x00-\x1f\x7f]+", name):
        remedy = "give a name without / : @ ? # % and line breaks that does not begin with m-, such as intents"
        raise ConfigError("--name", f"invalid value {name!r}", remedy)
    if len(name) > 200:
        raise ConfigError("--name", f"{len(name)} characters", "give at most 200")
    if alias is None:
        return
    if not re.fullmatch(r"[\w-]{1,255}", alias, re.ASCII):
        raise ConfigError("--alias", f"invalid value {alias!r}", "give letters, digits, - and _, such as champion")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise ConfigError("--alias", f"{alias!r} is reserved by MLflow", "give a word such as champion")


def register(
    uri: str, content: Content, name: str, alias: str | None, experiment: str, run_id: str | None = None
) -> Registered:
    """Makes a model a new version of a registered one. The alias then names this version.

    Args:
        uri: a resolved store.
        content: the model. If the run has logged it already, that one is registered.
        name: of the registered model, which is created if it does not exist.
        alias: also names the new version.
        experiment: where a model without a run is logged.
        run_id: the run that has learned it.

    Raises:
        UserError: a name or the store cannot be used, or MLflow refuses.
    """
    from mlflow.exceptions import MlflowException

    check_names(name, alias)
    check_store(uri, experiment, run_id)
    with user_errors(uri):
        find_artifacts(uri, lambda remark: None)
        client = connect(uri)
        group = client.get_run(run_id).info.experiment_id if run_id else experiment_id(client, uri, experiment)
        model_id = log(client, group, run_id, content)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with private.global_store(as_sqlalchemy(uri)):
            source = f"{PREFIX}{model_id}"
            made = client.create_model_version(name, source, run_id=run_id, tags=content.tags, model_id=model_id)
        private.link(client, model_id, name, made.version)
        if alias is not None:
            client.set_registered_model_alias(name, alias, made.version)
    return Registered(name, str(made.version), alias, f"{PREFIX}{name}/{made.version}")


def log(client: Any, experiment: str, run_id: str | None, content: Content) -> str:
    """Logs a model, unless the run has logged the same one; returns its id.

    What an earlier try has left half done is completed.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException

    folder = Path(content.folder)
    digest = hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()
    outputs = client.get_run(run_id).outputs.model_outputs if run_id else []
    logged = [client.get_logged_model(output.model_id) for output in outputs]
    model = next((model for model in logged if model.tags.get(DIGEST_TAG) == digest), None)
    if model is None:
        tags = {**content.tags, DIGEST_TAG: digest}
        model = client.create_logged_model(experiment, content.kind, run_id, tags, model_type=content.kind)
        if run_id:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    elif model.status == LoggedModelStatus.READY:
        return str(model.model_id)
    with tempfile.TemporaryDirectory() as aside:
        try:
            write(Path(aside), content, model.model_id, run_id)
        except MlflowException as error:  # not of the store: it would pass for an outage
            raise RuntimeError(f"the model of {folder} cannot be written") from error
        client.log_model_artifacts(model.model_id, str(Path(aside) / "model"))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def write(aside: Path, content: Content, model_id: str | None = None, run_id: str | None = None) -> Path:
    """Writes a model into an empty folder, below `model`, and returns that folder."""
    with warnings.catch_warnings():  # about types of MLflow's own
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema

    # MLflow takes the path for an address, in which some characters mean something else.
    shutil.copytree(content.folder, plain := aside / content.kind)
    package = _package(aside / "package.zip")
    needed = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in content.packages]
    params = {"abstain": True}
    asked = infer_signature(content.inputs, params=params)
    mlflow.pyfunc.save_model(
        aside / "model",
        python_model=str(Path(__file__).with_name("served.py")),
        artifacts={content.kind: str(plain), "package": str(package)},
        signature=ModelSignature(asked.inputs, Schema([ColSpec(_type(content.outputs[0]))]), asked.params),
        input_example=(content.inputs, params),
        pip_requirements=needed,
        mlflow_model=Model(model_id=model_id, run_id=run_id),
    )
    return aside / "model"


def _package(path: Path) -> Path:
    """Writes this package as a file that Python imports from. Its bytes depend on the code alone."""
    root = Path(__file__).parents[2]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for source in sorted((root / "distmeta").rglob("*.py")):
            file.writestr(zipfile.ZipInfo(str(source.relative_to(root))), source.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def _type(value: Any, depth: int = 0) -> Any:
    """The type of a value. A prediction has fixed keys; what it holds by label has those of the task."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Map, Object, Property

    match value:
        case list():
            return Array(_type(value[0]))
        case dict() if depth:
            return Map(_type(next(iter(value.values())), depth))
        case dict():  # a text is missing where the learner abstains
            return Object([Property(key, _type(its, 1), not isinstance(its, str)) for key, its in value.items()])
        case str():
            return DataType.string
    return DataType.double
