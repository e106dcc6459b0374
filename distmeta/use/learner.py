"""A meta-trained learner on disk: it learns new tasks without the training data or the starting weights.

RUN/learner/learner.json         format, model, algorithm, families; the names of θ's tensors in order
            tokenizer.json       for families of texts
            frozen.safetensors   parameters that training did not change
            theta.safetensors    θ
            SHA256SUMS           hashes of the other files, as `sha256sum -c` reads them
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from distmeta.algorithms.base import registry as algorithms
from distmeta.config.load import build_options
from distmeta.engine.params import Layout
from distmeta.engine.setup import ModelSpec
from distmeta.errors import CheckpointError, ConfigError, UserError
from distmeta.models.base import build
from distmeta.models.base import registry as models
from distmeta.models.functional import FunctionalModel
from distmeta.protocols import Codec, MetaLearner
from distmeta.storage import check_sums, replacing, require_format
from distmeta.tasks.base import registry as kinds
from distmeta.types import Batch, Inputs, Params
from distmeta.use.examples import examples_of
from distmeta.use.several import are_several
from distmeta.use.task import Task, learn

FORMAT = 1
REMEDY = "copy it again, or run `distmeta evaluate` on its run"
FOLDER, DOCUMENT, TOKENIZER, FROZEN, THETA = (
    *("learner", "learner.json", "tokenizer.json", "frozen.safetensors", "theta.safetensors"),
)


@dataclass(frozen=True)
class Learner:
    """A meta-trained learner: adapts to a new task of one of its families and predicts.

    `about` is the content of learner.json. A learner needs no data, no Ray and no MLflow, and computes on the CPU.
    """

    about: dict[str, Any]
    spec: ModelSpec
    algorithm: MetaLearner
    theta: Params
    tokenizer: Tokenizer | None

    @property
    def layout(self) -> Layout:
        """The layout of θ as a flat vector."""
        return Layout.of(self.theta)

    @cached_property
    def codecs(self) -> dict[str, Codec]:
        """The codec of each family: it turns examples into batches, and outputs into predictions."""
        return {
            name: build_options(kinds.get(task["kind"]), task["options"], {}).codec(name, task["codec"], self.tokenizer)
            for name, task in self.about["families"].items()
        }

    @cached_property
    def models(self) -> dict[str, FunctionalModel]:
        """The model of each family."""
        values = {name: torch.tensor(value) for name, value in self.spec.frozen.items()}
        network = build(self.spec.options, self.spec.architecture, self.spec.outputs, values, self.spec.seed)
        differentiable = self.spec.options.twice_differentiable
        return {
            name: FunctionalModel(network, codec, self.spec.freeze, differentiable)
            for name, codec in self.codecs.items()
        }

    def outputs(self, support: Batch, query: Inputs, family: str | None = None) -> torch.Tensor:
        """Adapts to T tasks and predicts.

        Args:
            support: the examples of the tasks.
            query: inputs of the elements to predict, (T, Q, …).
            family: the family of the tasks; optional if the learner has only one.

        Returns:
            (T, E, N) outputs of the query's elements.
        """
        model = self.models[self.family_of(family)]
        model.train(False)
        with torch.no_grad():
            theta = self.algorithm.sized(model, model.own(self.theta), support.outputs)
            return self.algorithm.predict(model, self.algorithm.adapt(model, theta, support), query)

    def adapt(
        self,
        inputs: Sequence[Any],
        answers: Sequence[Any],
        *,
        unlabelled: Sequence[Any] = (),
        descriptions: Mapping[str, Any] = MappingProxyType({}),
        wrong: float | None = None,
        family: str | None = None,
        multi_label: bool = False,
        expect: bool = True,
    ) -> Task:
        """Learns a task from examples.

        Args:
            inputs: what each example gives; for classification a text.
            answers: what is to be predicted of each; for classification its label. Any number of classes, and one
                example or more of each. Lists of labels make a task of texts with several labels, or none.
            unlabelled: further inputs without answers (see `distmeta.algorithms.unlabelled`).
            descriptions: of classes, by name: each counts as one more example. A class may have nothing else.
            wrong: predictions abstain where more than this share of the answers would be wrong, one of
                `distmeta.report.certainty.WRONG`. None: 0.05 if the learner was calibrated, else never.
            family: the family of the task; optional if the learner has only one.
            multi_label: whether texts may have several labels, even if none of the answers is a list.
            expect: whether to find out how good the task may be expected to be, its `expected`. It takes longer than
                learning where the learner adapts by gradient steps.

        Raises:
            ConfigError: there is no such family, or several and none was given.
            DataError: an example cannot be used; the error gives its number, from 1.
        """
        family = self.family_of(family)
        examples = examples_of(self.codecs[family], inputs, answers, unlabelled, descriptions)
        return learn(self, family, examples, wrong, multi_label or are_several(answers), expect)

    def predict(
        self, examples: Sequence[Mapping[str, Any]], queries: Sequence[Mapping[str, Any]], family: str | None = None
    ) -> list[dict[str, Any]]:
        """Learns a task from examples and predicts queries. The family defines what an example holds.

        For classification, examples are ``{"text": …, "label": …}`` and queries ``{"text": …}``; a prediction holds
        `label`, `certainty` and `probabilities`. Unlike those of `adapt` they are not calibrated.
        """
        family = self.family_of(family)
        codec = self.codecs[family]
        names = codec.names(examples)
        support, query = codec.encode(examples, names), codec.encode(queries, names)
        return codec.decode(self.outputs(support, query.inputs, family), query, names)

    def family_of(self, name: str | None) -> str:
        """The family of a name; None: the only one.

        Raises:
            ConfigError: there is no such family, or several and none was given.
        """
        if name in self.codecs or (name is None and len(self.codecs) == 1):
            return name or next(iter(self.codecs))
        found = "missing" if name is None else f"this learner has no family {name!r}"
        raise ConfigError("family", found, f"give one of {', '.join(self.codecs)}")

    def calibrated(self, calibrations: Mapping[str, list[dict[str, Any]]]) -> Learner:
        """The learner with calibrations of its families, by name (see `distmeta.runs.calibrate`)."""
        families = {n: {**its, "calibration": calibrations.get(n, [])} for n, its in self.about["families"].items()}
        return replace(self, about={**self.about, "families": families})

    def save(self, folder: Path) -> None:
        """Writes the learner completely or not at all. If the same one is there already, nothing is written.

        Raises:
            CheckpointError: it cannot be written.
        """
        written = folder / DOCUMENT
        if written.exists() and json.loads(written.read_text(encoding="utf-8")) == _plain(self.about):
            return
        try:
            with replacing(folder) as aside:
                save_file({name: value.contiguous() for name, value in self.theta.items()}, aside / THETA)
                save_file({name: torch.tensor(value) for name, value in self.spec.frozen.items()}, aside / FROZEN)
                if self.tokenizer is not None:
                    (aside / TOKENIZER).write_text(self.tokenizer.to_str(), encoding="utf-8")
                (aside / DOCUMENT).write_text(json.dumps(self.about, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            remedy = f"make room or allow writing, then `distmeta evaluate {folder.parent}`"
            raise CheckpointError(str(folder), f"the learner cannot be written ({error})", remedy) from error


def load(path: str | os.PathLike[str]) -> Learner:
    """Reads a learner.

    Args:
        path: a run's directory, or a copy of its `learner/`.

    Raises:
        CheckpointError: there is none, it has another format, or a file was altered.
    """
    folder = Path(path).expanduser()
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not (folder / DOCUMENT).is_file():
        remedy = f"train it, or run `distmeta evaluate {path}` if it is a run that was stopped"
        raise CheckpointError(str(path), "holds no learner", remedy)
    check_sums(folder, REMEDY)
    about = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    require_format(about, folder, FORMAT, remedy="evaluate the run again")
    try:
        return _build(folder, about)
    except CheckpointError:
        raise
    except UserError as error:
        raise CheckpointError(str(folder), f"{error.where} {error.found}", error.remedy) from error


def _build(folder: Path, about: dict[str, Any]) -> Learner:
    chosen, model = about["algorithm"], about["model"]
    options = build_options(models.get(model["name"]), model["options"], {})
    algorithm: MetaLearner = build_options(algorithms.get(chosen["name"]), chosen["options"], {})
    tensors = read_tensors(folder / THETA, REMEDY)
    outputs = {name: (entry["element"], entry["outputs"]) for name, entry in about["families"].items()}
    frozen = {name: value.numpy() for name, value in read_tensors(folder / FROZEN, REMEDY).items()}
    spec = ModelSpec(options, model["architecture"], outputs, tuple(model["freeze"]), frozen, seed=0)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER)) if (folder / TOKENIZER).exists() else None
    return Learner(about, spec, algorithm, {name: tensors[name] for name in about["meta_params"]}, tokenizer)


def read_tensors(path: Path, remedy: str) -> Params:
    """The tensors of a file of safetensors; other kinds of files, such as pickles, are not read.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(str(path), f"is no file of safetensors ({error})", remedy) from error


def _plain(content: dict[str, Any]) -> Any:
    """The content as it reads back from JSON."""
    return json.loads(json.dumps(content))
