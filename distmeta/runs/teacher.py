"""The teacher of a distilled run: another run's learner, checked to fit the student.

The teacher is a separate `RunSetup` with its own tokens, model and θ. It reads the student's episodes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from distmeta.engine.interfaces import Work
from distmeta.engine.setup import RunSetup
from distmeta.errors import CheckpointError, ConfigError, UserError
from distmeta.protocols import TaskFamily
from distmeta.runs.experiment import Experiment
from distmeta.runs.settings import make_kinds
from distmeta.use.learner import Learner, load

KEY = "algorithm.teacher"


def with_teacher(student: Experiment) -> Experiment:
    """The experiment with its teacher, if its algorithm has one: `algorithm.teacher` names the run.

    Raises:
        UserError: the teacher does not fit; the error names `algorithm.teacher` and the reason.
    """
    if not student.learner.has_teacher:
        return student
    options: Any = student.learner
    if options.teacher is None:
        raise ConfigError(KEY, "missing", "give the run directory of a meta-trained teacher")
    where = f"{KEY} {options.teacher}"
    try:
        teacher = load(Path(options.teacher))
    except UserError as error:
        raise CheckpointError(where, f"{error.where} {error.found}", error.remedy) from error
    _check_fit(where, teacher, student)
    return replace(student, setup=replace(student.setup, teacher=_beside(teacher, student)))


def _beside(teacher: Learner, student: Experiment) -> RunSetup:
    """The teacher, set up to read the student's meta-training episodes in its own tokens."""
    families: dict[str, TaskFamily] = {}
    for name, kind in make_kinds(student.config).items():
        config = student.config.single(name)
        settings = teacher.about["families"][name]["codec"]
        own = {key: value for key, value in settings.items() if key in type(config.data).model_fields}
        examples = kind.read(name, config.model_copy(update={"data": config.data.model_copy(update=own)}))
        families[name] = examples.load(teacher.tokenizer, teacher.spec.architecture).family
    adapts_body = any(name.startswith("body.") for name in teacher.algorithm.adapts(list(teacher.theta)))
    # The teacher's θ never changes. If all tasks share the body, the body runs once a row.
    by_row = all(
        teacher.models[name].one_element_each and len(family.rows("meta_train")) for name, family in families.items()
    )
    stream, cached = student.setup.training.stream, by_row and not adapts_body
    teaching = Work(stream, teacher.algorithm, training=False, cache_features=cached)
    layout, setup = teacher.layout, student.setup
    theta = layout.flatten(teacher.theta)
    return RunSetup(families, teacher.spec, layout, theta, setup.outer, teaching, setup.cluster)


def _check_fit(where: str, teacher: Learner, student: Experiment) -> None:
    """Refuses a teacher of other data, a teacher trained on the student's test classes, and a head of other ways."""
    own = teacher.about["families"]
    if set(own) != set(student.models):
        found = f"was meta-trained on {' and '.join(own)}, and this run on {' and '.join(student.models)}"
        raise ConfigError(where, found, "give a teacher of the same families of tasks")
    for name, family in student.setup.families.items():
        if (own[name]["kind"], own[name]["source"]) != (family.kind, family.source):
            raise ConfigError(where, "was meta-trained on other data", "give a teacher of this run's data")
        here = {label: key for key, split in student.splits[name].items() for label in split.classes}
        for label in own[name]["meta_train"]:
            if (split := here.get(label, "no split")) != "meta_train":
                found = f"was meta-trained on {label!r}, which is in {split} here"
                raise ConfigError(where, found, "give a teacher with the same data.splits and data.split")
        (_, needed), (_, learned) = student.setup.model.outputs[name], teacher.spec.outputs[name]
        if learned != needed and any(key.startswith("head.") for key in teacher.theta):
            found = f"meta-learned a head of {learned} outputs, and the episodes need {needed}"
            raise ConfigError(where, found, "set episodes.ways to the teacher's, or give one of protomaml or protonet")
