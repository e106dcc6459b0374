"""The teacher of a distilled run: another run's learner, checked to fit, ready to work beside the student's.

It is a `RunSetup` of its own: its tokens, model and θ. Only the episodes that it is given are the student's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distmeta.engine.setup import RunSetup
from distmeta.errors import CheckpointError, ConfigError, UserError
from distmeta.protocols import Work
from distmeta.runs import checkpoint, directory
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.runs.settings import make_kinds
from distmeta.tasks.base import manifest

KEY = "algorithm.teacher"


def with_teacher(student: Experiment) -> Experiment:
    """The experiment with its teacher, if its algorithm has one: the newest checkpoint of the run that it names.

    Raises:
        UserError: naming `algorithm.teacher`, and what of the run does not fit.
    """
    if not student.learner.has_teacher:
        return student
    folder = getattr(student.learner, "teacher")  # noqa: B009
    if folder is None:
        raise ConfigError(KEY, "missing", "give the run directory of a meta-trained teacher")
    where, path = f"{KEY} {folder}", Path(folder).expanduser()
    try:
        config, _ = directory.read(path, [])
        state, identity = checkpoint.load(path)
        own = build_experiment(config)
    except UserError as error:
        raise CheckpointError(where, f"{error.where} {error.found}", error.remedy) from error
    theta = state.arrays["meta_params"]
    changed = [name for name in ("data", "frozen_params") if own.identity[name] != identity[name]]
    if theta.shape != own.setup.meta_params.shape:
        changed.append("meta_params")
    if changed:
        found = f"was made with other {changed[0].replace('_', ' ')}"
        raise CheckpointError(where, found, "restore what it was made with, or meta-train it again")
    _check_fit(where, own, student)
    teacher = replace(own.setup, meta_params=theta)
    return replace(student, setup=replace(student.setup, teacher=_beside(own, teacher, student)))


def _beside(own: Experiment, teacher: RunSetup, student: Experiment) -> RunSetup:
    """The teacher, set up to meet the student's meta-training episodes in tokens of its own."""
    families = {}
    for name, kind in make_kinds(student.config).items():
        config = student.config.single(name)
        length = own.config.families[name].data.max_length
        data = config.data.model_copy(update={"max_length": length})
        examples = kind.read(name, config.model_copy(update={"data": data, "model": own.config.model}))
        families[name] = examples.load(own.tokenizer, own.setup.model.architecture).family
    adapts_body = any(name.startswith("body.") for name in own.learner.adapts(list(own.setup.layout.names)))
    # θ never changes: where all tasks share the body, it runs once a row.
    by_row = all(
        own.models[name].one_element_each and len(family.rows("meta_train")) for name, family in families.items()
    )
    teaching = Work(
        student.setup.training.stream, own.learner, training=False, cache_features=by_row and not adapts_body
    )
    return replace(teacher, families=families, training=teaching)


def _check_fit(where: str, own: Experiment, student: Experiment) -> None:
    """Refuses a teacher of other data, one that knows what the student is tested on, and a head of other ways."""
    if set(own.models) != set(student.models):
        found = f"was meta-trained on {' and '.join(own.models)}, and this run on {' and '.join(student.models)}"
        raise ConfigError(where, found, "give a teacher of the same families of tasks")
    for name, family in student.setup.families.items():
        stream = student.streams[name]["meta_train"][0]
        if manifest(own.setup.families[name], stream, 0) != manifest(family, stream, 0):
            raise ConfigError(where, "was meta-trained on other data", "give a teacher of this run's data")
        here = {label: split for split, its in student.splits[name].items() for label in its.classes}
        for label in own.splits[name]["meta_train"].classes:
            if (split := here.get(label, "no split")) != "meta_train":
                found = f"was meta-trained on {label!r}, which is of {split} here"
                raise ConfigError(where, found, "give a teacher with the same data.splits and data.split")
        (_, outputs), (_, its) = student.setup.model.outputs[name], own.setup.model.outputs[name]
        if its != outputs and any(key.startswith("head.") for key in own.setup.layout.names):
            found = f"meta-learned a head of {its} outputs, and the episodes need {outputs}"
            raise ConfigError(where, found, "set episodes.ways to the teacher's, or give one of protomaml or protonet")
