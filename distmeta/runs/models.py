"""A learner or a task as an MLflow model: what it is asked, what it answers, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.config import RunConfig
from distmeta.errors import DataError
from distmeta.runs import directory
from distmeta.runs.directory import Note
from distmeta.tracking import PACKAGES, Content, Registered, Tracker
from distmeta.use.learner import FOLDER, Learner, load
from distmeta.use.saved import load_task
from distmeta.use.task import DOCUMENT, Task

SHOWN = 2  # inputs in the example of a request


def content(folder: Path, used: Learner | Task) -> Content:
    """The model of a learner or a task that was saved in a folder.

    Raises:
        DataError: the learner cannot read its families' samples, since its tokenizer is for another script.
    """
    learner: Any = used.learner if isinstance(used, Task) else used
    inputs, outputs = _of_task(used) if isinstance(used, Task) else _of_learner(used)
    about = learner.about
    tags = {
        "distmeta.algorithm": about["algorithm"]["name"],
        "distmeta.model": about["model"]["name"],
        "distmeta.families": ", ".join(about["families"]),
        "distmeta.meta_params_sha256": about["meta_params_sha256"],
        "distmeta.outer_steps": str(about["outer_steps"]),
    }
    packages = [*PACKAGES, *(["transformers"] if about["model"]["name"] == "hf" else [])]
    return Content(str(folder), "task" if isinstance(used, Task) else "learner", inputs, outputs, tags, packages)


def log_model(tracker: Tracker, folder: Path, learner: Learner, note: Note) -> None:
    """Logs a run's learner as its model. If that cannot be, `note` gets a remark: the run goes on."""
    try:
        model = content(folder, learner)
    except DataError as error:
        note(f"note: MLflow does not get the learner as a model: {error.where} {error.found}")
    else:
        tracker.log_model(model)


def _of_learner(learner: Learner) -> tuple[list[Any], list[Any]]:
    """A request with a small task of each family, and the answers."""
    several, inputs, outputs = len(learner.codecs) > 1, [], []
    for name, codec in learner.codecs.items():
        if not (examples := list(codec.samples)):
            raise DataError(f"family {name}", "has no examples to show", "give its codec `samples`")
        queries = [{key: example[key] for key in codec.given} for example in examples[:SHOWN]]
        inputs.append({**({"family": name} if several else {}), "examples": examples, "queries": queries})
        answers = [example[codec.answer] for example in examples]
        task = learner.adapt(examples, answers, family=name, expect=False)
        outputs.append(list(task.answers(queries, abstain=False)))
    return inputs, outputs


def _of_task(task: Task) -> tuple[list[Any], list[Any]]:
    """Some of the task's own examples, without their answers, and what it predicts."""
    given = task.codec.given
    queries = [{key: example[key] for key in given} for example in task.examples[:SHOWN]]
    outputs = list(task.answers(queries, abstain=False))
    return ([query[given[0]] for query in queries] if len(given) == 1 else queries), outputs


def registered(run: str, name: str, alias: str | None, uri: str | None = None) -> Registered:
    """Registers a run's learner, a learner of its own, or a task.

    Args:
        run: as for `directory.place`.
        name: of the registered model.
        alias: of its new version.
        uri: MLflow's store. None: the run's, else the one of this process.

    Raises:
        UserError: there is no such learner or task, or it cannot be registered.
    """
    folder = directory.place(run)
    used: Learner | Task
    if (folder / DOCUMENT).is_file():
        used = load_task(folder)
    else:
        used = load(folder)
        folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    tracks, run_id = RunConfig().tracking, None
    if (folder.parent / directory.RUN).is_file():
        config, about = directory.read(folder.parent, [])
        tracks, run_id = config.tracking, about["mlflow_run_id"]
    store = tracking.resolve_uri(uri or tracks.uri)
    if store != tracking.resolve_uri(tracks.uri):
        run_id = None
    return tracking.register(store, content(folder, used), name, alias, tracks.experiment, run_id)
