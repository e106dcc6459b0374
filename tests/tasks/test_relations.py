"""Relations: pairs of marked entities are elements, learned and used like classes of texts."""

import csv
import random
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from bad_input.commands import run as command
from model_helpers import episodes, save_encoder
from toy import run, toy_config

import distmeta
from distmeta.errors import ConfigError, DataError
from distmeta.models.functional import FunctionalModel
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.tasks.relations import Relations
from distmeta.types import Params, Stream
from distmeta.use.export.write import export

RELATIONS = 12
SMALL: dict[str, Any] = {"name": "text_rnn", "embedding_size": 12, "hidden_size": 12, "min_count": 1}


def write_relations(path: Path) -> Path:
    """Relation n holds between things of kind n and n + 1; other such things stand in the sentence too."""
    chance = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(RELATIONS):
            for _ in range(8):
                head, tail = f"[E1]thing{number}[/E1]", f"[E2]thing{(number + 1) % RELATIONS}[/E2]"
                words = [f"thing{chance.randrange(RELATIONS)}" for _ in range(chance.randint(2, 5))]
                pair = [head, *words[:1], tail] if chance.random() < 0.5 else [tail, *words[:1], head]
                writer.writerow([" ".join([*words[1:2], *pair, *words[2:]]), f"relation {number:02}"])
    return path


def settings(folder: Path, **overrides: Any) -> dict[str, Any]:
    if not (folder / "relations.csv").exists():
        write_relations(folder / "relations.csv")
    data = {"kind": "relations", "path": str(folder / "relations.csv"), "cache": str(folder / "cache")}
    data["splits"] = {"train": 0.5, "validation": 0.25, "test": 0.25}  # type: ignore[assignment]
    return {"data": data, "model": SMALL, "evaluation__shots": [2], **overrides}


def built(folder: Path, **overrides: Any) -> Experiment:
    return build_experiment(toy_config(folder, **settings(folder, **overrides)))


@pytest.mark.parametrize("pair", ["spans", "points"])
@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_relations_are_learned_and_the_learner_is_used(tmp_path: Path, name: str, pair: str) -> None:
    steps: dict[str, Any] = {"outer": {"lr": 0.03, "steps": 40, "meta_batch_size": 6}, "cluster__tasks_per_unit": 6}
    learned: dict[str, Any] = {"algorithm__name": name, "inner": {"lr": 0.5, "steps": 3} if name == "maml" else {}}
    few = {"evaluation__episodes": 30, "evaluation__curve_steps": 0, "data__pair": pair}
    result = run(tmp_path, "run", **settings(tmp_path, **steps, **learned, **few))
    (row,) = result["meta_test"]
    assert row["title"] == "3-way 2-shot"
    assert row["accuracy"] > 0.8  # a third by chance: the same things stand in sentences of all relations
    learner = distmeta.load(result["run_dir"])
    texts = [f"thing9 [E1]thing{n}[/E1] to [E2]thing{n + 1}[/E2]" for n in (1, 5)]
    task = learner.adapt([*texts, texts[0].replace("to", "of")], ["one", "five", "one"])
    task.save(tmp_path / "task")
    found = distmeta.load_task(tmp_path / "task").predict([text.replace("thing9", "thing8") for text in texts], False)
    assert set(found) <= {"one", "five"}
    with pytest.raises(DataError, match=r"example 1: the mark \[E2\] is missing"):
        task.predict(["[E1]thing1[/E1] alone"])
    with pytest.raises(ConfigError, match="the task does not classify texts"):
        export(task, tmp_path / "out", "hf")


def test_an_element_is_the_mean_states_of_head_and_tail(tmp_path: Path) -> None:
    experiment = built(tmp_path)
    model, kind = experiment.model, cast(Relations, experiment.model.task)
    support = episodes(kind, experiment.streams["relations"]["meta_train"][0], 0, 2).support
    model.train(False)
    theta = model.init()
    features = model.features(theta, {}, support.inputs)
    ids, mask = support.inputs["input_ids"], support.inputs["attention_mask"]
    for task in range(2):
        for row in range(ids.shape[1]):
            count = int(mask[task, row].sum())
            states = model.network.body.states(ids[task, row : row + 1, :count], mask[task, row : row + 1, :count])[0]
            start, end, first, last = support.inputs["spans"][task, row].tolist()
            expected = torch.cat([states[start:end].mean(0), states[first:last].mean(0)])
            torch.testing.assert_close(features[task, row], expected)


def test_a_body_that_is_cut_gives_the_same(tmp_path: Path) -> None:
    """Layers below the first adapted one run once, and the spans are still there."""
    model_options = {"name": "hf", "path": save_encoder(tmp_path / "encoder"), "normalize": True}
    experiment = built(
        tmp_path, model=model_options, inner={"lr": 0.1, "steps": 1, "adapt": "top:1"}, data__max_length=32
    )
    model, learner = experiment.model, experiment.learner
    support = episodes(model.task, experiment.streams["relations"]["meta_train"][0], 0, 2).support
    model.train(False)
    theta = learner.init(model, torch.Generator())
    names = learner.adapts(list(theta))
    cut = model.encode(theta, names, support.inputs)
    assert any(name.startswith("hidden.") for name in cut)
    stacked = {name: theta[name].expand(2, *theta[name].shape) for name in names}
    torch.testing.assert_close(
        model.outputs(theta, stacked, cut), model.outputs(theta, {}, support.inputs), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("pair", ["spans", "points"])
def test_the_meta_gradient_is_the_derivative(tmp_path: Path, pair: str) -> None:
    """In float64, against finite differences along a random direction."""
    experiment = built(tmp_path, inner={"lr": 0.5, "steps": 2}, data__pair=pair)
    model: FunctionalModel = experiment.model
    model.network.double()
    theta = {name: value.double() for name, value in experiment.learner.init(model, torch.Generator()).items()}
    episode = episodes(model.task, experiment.streams["relations"]["meta_train"][0], 0, 3)
    gradient, _ = experiment.learner.meta_gradient(model, theta, episode)
    generator = torch.Generator().manual_seed(1)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}

    def loss(step: float) -> float:
        moved: Params = {name: value + step * direction[name] for name, value in theta.items()}
        adapted = experiment.learner.adapt(model, moved, episode.support)
        outputs = experiment.learner.predict(model, adapted, episode.query.inputs)
        return float(model.task.loss(outputs, episode.query).sum().detach())

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert slope == pytest.approx(sum(float((gradient[n] * direction[n]).sum()) for n in theta), rel=1e-6)


def test_spans_of_a_corpus_are_those_of_the_codec(tmp_path: Path) -> None:
    experiment = built(tmp_path)
    kind = cast(Relations, experiment.setup.families["relations"])
    learner = experiment.trained(experiment.setup.meta_params, 0)
    draw = kind.draw(Stream.of("relations", "meta_test", 3, ways=2, shots=1, queries=1), 0)
    support = kind.batch([draw]).support
    with (tmp_path / "relations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    examples = [rows[row] for row in kind.corpus.source_rows[draw.support.ravel()]]
    batch = learner.codecs["relations"].encode(examples, sorted({its["label"] for its in examples}))
    for name in ("input_ids", "spans"):
        assert batch.inputs[name].tolist() == support.inputs[name].tolist(), name


def test_a_relation_has_no_description(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a relation is shown by sentences with marked entities"):
        built(tmp_path, data__descriptions="names")


def test_a_sentence_without_marks_gets_a_remark_and_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = built(tmp_path, algorithm__name="protonet", inner={})
    learner = experiment.trained(experiment.setup.meta_params, 0)
    texts = ["[E1]thing1[/E1] to [E2]thing2[/E2]", "[E1]thing5[/E1] to [E2]thing6[/E2]"]
    learner.adapt(texts, ["one", "five"]).save(tmp_path / "task")
    (tmp_path / "new.txt").write_text(f"{texts[0]}\nno mark\n", encoding="utf-8")
    words = ["predict", str(tmp_path / "task"), str(tmp_path / "new.txt"), "--always"]
    code, out, err = command(words, capsys, monkeypatch)
    assert code == 0
    assert [row["label"] for row in csv.DictReader(out.splitlines())] == ["one", ""]
    assert "new.txt line 2: the mark [E1] is missing, and no answer" in err
