"""The teacher of a distilled run: it fits, meets the same rows, and changes no more."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import episodes
from toy import DROPOUT, evaluated, run, run_and_stop, toy_config, training_stream, write_data

from distmeta.backends import open_backend
from distmeta.engine.params import sha256
from distmeta.engine.worker import Teacher, _Job
from distmeta.errors import CheckpointError, UserError
from distmeta.report.progress import Reporter
from distmeta.runs import checkpoint, directory, paths
from distmeta.runs import train as driver
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.runs.teacher import with_teacher
from distmeta.storage import write_sums
from distmeta.types import ServerState, Unit
from distmeta.use import learner

TEACHER: dict[str, Any] = {
    "model": {"name": "mlp", "embedding_size": 6, "hidden_sizes": [5], "min_count": 9},  # other tokens, other features
    "algorithm__name": "protomaml",
    "inner__adapt": "head",
    "data__max_length": 7,
}


def make_teacher(folder: Path, name: str = "teacher", seed: int = 0, **overrides: Any) -> Path:
    """The directory of a run whose θ is arbitrary."""
    config = paths.absolute(toy_config(folder, **{**deepcopy(TEACHER), **overrides}))
    experiment = with_teacher(build_experiment(config))
    theta = experiment.setup.meta_params
    theta = theta + np.random.default_rng(seed).normal(size=theta.shape).astype(np.float32)
    directory.create(folder / name, config, None)
    directory.write_json(folder / name / directory.RUN, {"mlflow_uri": "", "mlflow_run_id": ""})
    checkpoint.save(folder / name, ServerState({"meta_params": theta}, {"version": 1}), experiment.identity, 1)
    experiment.trained(theta, 1).save(folder / name / learner.FOLDER)
    return folder / name


def student(folder: Path, teacher: Path | str, **overrides: Any) -> Experiment:
    return with_teacher(build_experiment(toy_config(folder, **distilled(teacher, **overrides))))


def distilled(teacher: Path | str, **overrides: Any) -> dict[str, Any]:
    return {"algorithm__name": "distill", "algorithm__teacher": str(teacher), **overrides}


@pytest.mark.parametrize("adapt", ["head", "all"])
def test_teacher_and_student_meet_the_same_rows_in_tokens_of_their_own(tmp_path: Path, adapt: str) -> None:
    """Its outputs are those of its own experiment on the student's episodes, run there without a worker."""
    folder = make_teacher(tmp_path, inner__adapt=adapt, model__dropout=0.5)
    setup = student(tmp_path, folder, seed=3).setup
    assert setup.teacher is not None
    assert setup.teacher.training.cache_features == (adapt == "head")
    worker, stream = setup.make_worker("0", "cpu"), training_stream(setup)
    assert worker.teacher is not None
    worker.teacher.teach(stream, Unit(0, 0, 3))
    theta = worker.layout.unflatten(setup.meta_params)
    episode = worker._episode(_Job.of(worker, setup.training, Unit(0, 5, 2), theta))
    drawn = episodes(setup.families["classification"], stream, 5, 2)

    own = build_experiment(directory.read(folder, [])[0])
    theta = own.setup.layout.unflatten(checkpoint.load(folder)[0].arrays["meta_params"])
    its = episodes(own.setup.families["classification"], stream, 5, 2)
    own.model.train(False)
    with torch.no_grad():
        adapted = own.learner.adapt(own.model, theta, its.support)
        for mine, here, there in zip(*((each.support, each.query) for each in (episode, drawn, its)), strict=True):
            assert torch.equal(here.inputs["rows"], there.inputs["rows"])
            assert here.inputs["input_ids"].tolist() != there.inputs["input_ids"].tolist()
            expected = own.learner.predict(own.model, adapted, there.inputs)
            torch.testing.assert_close(mine.inputs["teacher"], expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_of_other_rows_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = student(tmp_path, make_teacher(tmp_path)).setup
    worker = setup.make_worker("0", "cpu")
    teach = Teacher.teach
    monkeypatch.setattr(Teacher, "teach", lambda self, stream, unit: teach(self, replace(stream, seed=9), unit))
    with pytest.raises(ValueError, match="different rows"):
        worker.run(setup.training, Unit(0, 0, 2), setup.meta_params)


def test_a_setup_with_a_teacher_builds_the_same_worker_elsewhere(tmp_path: Path) -> None:
    setup = student(tmp_path, make_teacher(tmp_path), model__dropout=0.3).setup
    back = pickle.loads(pickle.dumps(setup))
    unit = Unit(0, 4, 2)
    first = setup.make_worker("0", "cpu").run(setup.training, unit, setup.meta_params).gradient
    used = back.make_worker("1", "cpu")
    used.run(back.training, Unit(0, 0, 3), back.meta_params)
    assert first is not None
    assert np.array_equal(first, used.run(back.training, unit, back.meta_params).gradient)


def trained(folder: Path, **overrides: Any) -> str:
    """Hash of θ after 5 outer steps with dropout."""
    config = toy_config(folder, **{**DROPOUT, **overrides})
    with open_backend(config.cluster) as backend:
        coordination = backend.start(with_teacher(build_experiment(config)).setup, print)
        coordination.advance(5)
        return sha256(coordination.state().arrays["meta_params"])


def test_the_teacher_leaves_the_students_dropout_alone(tmp_path: Path) -> None:
    """With weight 0 the whole run is Proto-MAML's, though a teacher stands beside it."""
    teacher = make_teacher(tmp_path, model__dropout=0.5, inner__dropout=0.5)
    plain = trained(tmp_path, algorithm__name="protomaml")
    assert trained(tmp_path, **distilled(teacher, algorithm__weight=0.0)) == plain
    assert trained(tmp_path, **distilled(teacher)) != plain


def test_the_teacher_is_silent_in_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = student(tmp_path, make_teacher(tmp_path))
    worker = experiment.setup.make_worker("0", "cpu")

    def refuse(*arguments: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(Teacher, "teach", refuse)
    work = experiment.work(experiment.learner, evaluated(experiment, "meta_test", 1), 2)
    assert worker.run(work, Unit(0, 0, 2), experiment.setup.meta_params).metrics["right"].shape == (2,)
    with pytest.raises(AssertionError, match="asked"):
        worker.run(experiment.setup.training, Unit(0, 0, 2), experiment.setup.meta_params)


@pytest.mark.nightly
def test_two_ray_workers_agree_with_this_process(tmp_path: Path, ray_session: None) -> None:
    options = distilled(make_teacher(tmp_path))
    assert trained(tmp_path, cluster__backend="ray", **options) == trained(tmp_path, **options)


def test_resumed_with_a_teacher_that_has_moved_is_straight_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the teacher lies does not count, what it is does."""
    teacher = make_teacher(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = distilled("teacher")
    straight = run(tmp_path, "straight", **options)
    stopped = run_and_stop(tmp_path, monkeypatch, **options)
    assert f"teacher: {tmp_path}/teacher\n" in (stopped / directory.CONFIG).read_text()
    monkeypatch.chdir("/")
    teacher.rename(tmp_path / "moved")
    make_teacher(tmp_path, seed=1)
    with pytest.raises(CheckpointError, match="was made with other teacher"):
        driver.resume(stopped, [], Reporter())
    moved = paths.absolute(toy_config(tmp_path, **{**DROPOUT, **distilled(tmp_path / "moved")}))
    resumed = driver.resume(stopped, [], Reporter(), given=moved)
    assert resumed["meta_params_sha256"] == straight["meta_params_sha256"]


def test_a_distilled_run_may_teach(tmp_path: Path) -> None:
    first = make_teacher(tmp_path)
    second = make_teacher(tmp_path, "second", **distilled(first))
    (first / directory.CONFIG).unlink()  # it is done with
    assert student(tmp_path, second).setup.teacher is not None


def without(name: str) -> Callable[[Path], Path]:
    """A teacher that lacks a file or folder."""

    def make(folder: Path) -> Path:
        path = make_teacher(folder)
        (path / name).rename(folder / "aside")
        return path

    return make


def of_other_data(folder: Path) -> Path:
    other = write_data(folder / "other.csv")
    other.write_text(other.read_text().replace("word1 ", "word2 "))
    return make_teacher(folder, data__path=str(other))


def of_data_that_changed(folder: Path) -> Path:
    path = make_teacher(folder)
    (folder / "data.csv").write_text((folder / "data.csv").read_text().replace("word1 ", "word2 "))
    return path


def altered(name: str, old: bytes, new: bytes, is_signed: bool = False) -> Callable[[Path], Path]:
    """A teacher of whose learner a file was changed afterwards; `is_signed`: with its hash."""

    def make(folder: Path) -> Path:
        path = make_teacher(folder)
        content = (path / learner.FOLDER / name).read_bytes()
        assert old in content
        (path / learner.FOLDER / name).write_bytes(content.replace(old, new))
        if is_signed:
            write_sums(path / learner.FOLDER)
        return path

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no folder": (lambda folder: folder / "nowhere", "nowhere holds no learner; train it, or run `distmeta evaluate"),
    "stopped": (without("learner"), "teacher holds no learner; train it, or run `distmeta evaluate"),
    "a part is missing": (without("learner/theta.safetensors"), "SHA256SUMS was altered or cut short"),
    "an unknown model": (altered("learner.json", b'"mlp"', b'"nlp"', is_signed=True), "model.name 'nlp' is unknown"),
    "another frozen part": (altered("frozen.safetensors", b"{", b" "), "frozen.safetensors was altered or cut short"),
    "data that changed": (of_data_that_changed, "was meta-trained on other data"),
    "other data": (of_other_data, "was meta-trained on other data"),
    "other splits": (
        lambda folder: make_teacher(folder, data__split="2"),
        r"was meta-trained on 'class \d+', which is in meta_(test|validation) here",
    ),
    "a head of other ways": (
        lambda folder: make_teacher(folder, algorithm__name="maml", episodes__ways=2),
        "meta-learned a head of 2 outputs, and the episodes need 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_teacher_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    folder = make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        student(tmp_path, folder)
    assert caught.value.where == f"algorithm.teacher {folder}"


def test_a_teacher_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"algorithm\.teacher: missing"):
        with_teacher(build_experiment(toy_config(tmp_path, algorithm__name="distill")))


def test_a_head_made_of_prototypes_fits_other_ways(tmp_path: Path) -> None:
    setup = student(tmp_path, make_teacher(tmp_path, episodes__ways=2)).setup
    assert setup.make_worker("0", "cpu").run(setup.training, Unit(0, 0, 2), setup.meta_params).gradient is not None
