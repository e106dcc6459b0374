"""A text and its label count once, and a text stands in an episode once, unless `data.copies` is set."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from source_helpers import labels, read, texts
from streams import stream_config, visit
from toy import toy_config

from distmeta.config import RunConfig
from distmeta.data.corpus import Corpus
from distmeta.data.labelled import Source
from distmeta.data.look import look
from distmeta.errors import DataError, UserError
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.classification import Classification
from distmeta.tasks.drawing import draw_rows
from distmeta.tasks.rounds import generator
from distmeta.types import Stream

Row = dict[str, Any]

PLAIN = Corpus(pa.table({}), (), {}, 0, "", "", 8)


def row(text: str, label: str, task: str = "t") -> Row:
    return {"text": text, "label": label, "task": task}


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


@pytest.mark.parametrize(
    ("files", "keys", "kept", "copies"),
    [
        ([[row("a", "x"), row("a", "x"), row("b", "x"), row("a", "x")]], {}, [0, 2], {"x": 2}),
        ([[row("a", "x"), row("a", "y"), row("a", "y")]], {}, [0, 1], {"y": 1}),
        ([[row("a", "x"), row("a ", "x"), row("A", "x"), row("a", "x ")]], {}, [0, 1, 2, 3], {}),
        ([[row("a", "x", "s"), row("a", "x", "t"), row("a", "x", "s")]], {"task": "task"}, [0, 1], {"s/x": 1}),
        ([[row("a", "x", "s"), row("a", "x", "t"), row("a", "x", "s")]], {}, [0], {"x": 2}),
        (
            [[row("a", "x"), row("b", "y")], [row("b", "y"), row("a", "y")], [row("a", "x")]],
            {},
            [0, 1, 3],
            {"x": 1, "y": 1},
        ),
        ([[row("a", "-1"), row("a", "0"), row("b", "5"), row("a", "0"), row("c", "5")]], {}, [1, 2, 4], {"0": 1}),
    ],
    ids=["same label", "other label", "blanks and case", "tasks", "tasks not named", "files", "placeholders"],
)
def test_what_is_a_copy(
    tmp_path: Path, files: list[list[Row]], keys: dict[str, str], kept: list[int], copies: dict[str, int]
) -> None:
    for number, rows in enumerate(files):
        write(tmp_path / f"{number}.jsonl", rows)
    every = [each for rows in files for each in rows]
    names = [f"{tmp_path}/{n}.jsonl line {line}" for n, rows in enumerate(files) for line, _ in enumerate(rows, 1)]
    source = read(tmp_path, **keys)
    assert texts(source) == [every[number]["text"] for number in kept]
    assert [name.rpartition("/")[2] for name in labels(source)] == [every[number]["label"] for number in kept]
    assert list(source.names) == [names[number] for number in kept]
    assert source.copies == copies
    assert (list(range(len(every))) if source.numbers is None else source.numbers.tolist()) == kept
    with_all = read(tmp_path, copies=True, **keys)
    assert len(with_all.texts) - len(kept) == sum(copies.values())
    assert look(with_all, {}, 0).copies_kept == look(source, {}, 0).copies == sum(copies.values())
    assert look(with_all, {}, 0).copies == look(source, {}, 0).copies_kept == 0


def test_the_look_says_what_became_of_copies() -> None:
    every = Source.of(["a", "b", "a", "a"], ["x", "y", "x", "y"])
    remark = "1 more rows are copies of these with the same label and are left out (data.copies=true keeps them)"
    assert look(every.without_copies(), {}, 0).remarks()[1] == remark
    assert look(every, {}, 0).remarks()[1].startswith("1 rows are copies of others with the same label")


def test_data_without_copies_are_as_they_were(tmp_path: Path) -> None:
    source = Source.of(["a", "b"], ["x", "y"])
    assert source.without_copies() is source
    with_copy = Source.of(["a", "a", "b"], ["x", "x", "y"])
    assert with_copy.without_copies().fingerprint == source.fingerprint != with_copy.fingerprint


LETTERS = "abcdefghij"


@pytest.mark.parametrize(
    ("enough", "kept"), [(0, "aabbb"), (2, "aabbb"), (3, "aaaabbb"), (4, "aaaabbbb"), (9, "aaaabbbb")]
)
def test_a_class_that_would_have_too_few_examples_keeps_its_copies(enough: int, kept: str) -> None:
    every = Source.of(["1", "1", "1", "2", "1", "2", "3", "3"], [*"aaaabbbb"])
    source = every.without_copies(enough)
    assert "".join(labels(source)) == kept
    assert sum(source.copies.values()) == 8 - len(kept)


@pytest.mark.parametrize("keys", [{}, {"data__min_examples": 8}, {"data__task": "task"}])
def test_classes_of_one_text_are_run_with_a_remark(tmp_path: Path, keys: dict[str, Any]) -> None:
    rows = [row(f"only {letter}", letter) for letter in "abcdefghijkl"] * 8
    if "data__task" in keys:
        rows = [row(f"only {n} {letter}", letter, f"t{n}") for n in range(6) for letter in "xyz"] * 8
    path = write(tmp_path / "data.jsonl", rows)
    experiment = build_experiment(toy_config(tmp_path, data__path=str(path), evaluation__ways=3, **keys))
    look = experiment.looks["classification"]
    assert look.copies == 0
    assert look.copies_kept == len(rows) - len({each["text"] for each in rows})
    assert "rows are copies of others with the same label, and stay: an episode may test on" in str(look.remarks())


def contradictory(folder: Path, shared: int, own: int, **keys: Any) -> RunConfig:
    """Twelve classes, or twelve tasks of three, of `own` texts, and `shared` texts that stand in each of them."""
    names = [(f"c{n:02}", "t") for n in range(12)] if "data__task" not in keys else []
    names = names or [(label, f"t{n:02}") for n in range(12) for label in "xyz"]
    rows = [row(f"word{n} own {label} {task}", label, task) for label, task in names for n in range(own)]
    rows += [row(f"word{n} shared", label, task) for label, task in names for n in range(shared)] * 2
    path = write(folder / "data.jsonl", rows)
    return toy_config(folder, data__path=str(path), **keys)


def family_of(config: RunConfig) -> Classification:
    family = build_experiment(config).setup.families["classification"]
    assert isinstance(family, Classification)
    return family


def drawn(family: Classification, stream: Stream, index: int) -> list[str]:
    """The texts of an episode, as token ids."""
    draw = family.draw(stream, index)
    rows = np.concatenate([draw.support, draw.query], axis=1)
    assert len(np.unique(rows)) == rows.size
    inputs = family.collate(rows)
    classes = np.array(family.corpus.classes)[inputs["labels"].numpy()]
    for number, name in enumerate(draw.names):
        assert set(classes[number]) == set(name.split(" + "))
    return [str(ids[ids != family.corpus.pad_id].tolist()) for ids in inputs["input_ids"].flatten(0, 1)]


SHAPE = {"ways": 3, "shots": 2, "queries": 2}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"episodes": {**SHAPE, "label_mixing": 0.5}},
        {"episodes": {**SHAPE, "label_shuffle": False}},
        {"data__task": "task"},
    ],
    ids=["classes", "mixed", "ordered", "tasks"],
)
def test_no_text_is_twice_in_an_episode(tmp_path: Path, keys: dict[str, Any]) -> None:
    """Each class has five texts of its own and nine that all have; an episode takes four of each class."""
    config = contradictory(tmp_path, 9, 5, **keys)
    family = family_of(config)
    mixing = {"label_mixing": 0.5} if config.episodes.label_mixing else {}
    stream = Stream.of(
        "classification", "meta_train", 0, **SHAPE, label_shuffle=config.episodes.label_shuffle, **mixing
    )
    for index in range(200):
        found = drawn(family, stream, index)
        assert len(set(found)) == len(found)
    again = family_of(config.model_copy(update={"data": config.data.model_copy(update={"copies": True})}))
    several = [drawn(again, stream, index) for index in range(200)]
    assert sum(len(set(found)) < len(found) for found in several) > 100


def test_the_texts_of_rounds_are_once_in_an_episode(tmp_path: Path) -> None:
    """Tasks of two labels that have ten texts in common."""
    rows = [row(f"own{n} {label} {task}", label, f"t{task}") for task in range(8) for label in "xy" for n in range(30)]
    rows += [row(f"word{n} shared", label, f"t{task}") for task in range(8) for label in "xy" for n in range(10)]
    path = write(tmp_path / "data.jsonl", rows)
    family = family_of(stream_config(tmp_path, data__path=str(path), data__task="task"))
    for stream in (visit((2, 2, 2)), visit((2, 2, 2), round=1), visit((2, 4, 4), round=2)):
        for index in range(60):
            found = drawn(family, stream, index)
            assert len(set(found)) == len(found)


def test_too_few_examples_for_the_rounds_without_copies(tmp_path: Path) -> None:
    rows = [
        row(f"own{n % 9} {label} {task}", label, f"t{task}") for task in range(8) for label in "xy" for n in range(40)
    ]
    path = write(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError, match="to train on, without the rows that were left out in reading; lower"):
        build_experiment(stream_config(tmp_path, data__path=str(path), data__task="task"))


def test_a_class_with_too_few_other_texts_keeps_the_text(tmp_path: Path) -> None:
    family = family_of(contradictory(tmp_path, 4, 1))
    stream = Stream.of("classification", "meta_train", 0, **SHAPE)
    for index in range(50):
        found = drawn(family, stream, index)
        # Three of their own at most, and the four that all have.
        assert 4 < len(set(found)) <= 7
        assert len(found) == 12


def test_only_episodes_with_a_text_twice_are_changed() -> None:
    """Rows 3 and 13 have one text. In an episode with both, one of them gives way to another row of its class."""
    pools = [np.arange(10), np.arange(10, 20), np.arange(20, 30)]
    once = replace(PLAIN, repeated=np.array([[3, 13], [7, 7]]))
    stayed = []
    for seed in range(300):
        before, after = (np.stack(draw_rows(its, pools, [4] * 3, generator(seed))) for its in (PLAIN, once))
        if not {3, 13} <= set(before.flat):
            assert after.tolist() == before.tolist()
            continue
        stayed += sorted({3, 13} & set(after.flat))
        ((pool, place),) = np.argwhere(before != after)
        assert before[pool, place] in (3, 13)
        assert after[pool, place] in set(pools[pool]) - set(before[pool])
    # Both are in an episode with probability 0.4², and either may stay: binomial, 4 standard deviations.
    assert abs(len(stayed) - 48) < 4 * 6.4
    assert abs(stayed.count(3) - len(stayed) / 2) < 4 * len(stayed) ** 0.5 / 2


def test_episodes_name_the_rows_of_the_file(tmp_path: Path) -> None:
    """Each row is followed by its copy, and the first has no known label."""
    rows = [row(f"word{n} own {letter}", letter) for letter in LETTERS for n in range(5)]
    every = [row("nothing", "-1"), *(each for pair in zip(rows, rows, strict=True) for each in pair)]
    lines = [each if each["label"] != "-1" else {**each, "label": -1} for each in every]
    write(tmp_path / "data.jsonl", lines)
    family = family_of(toy_config(tmp_path, data__path=str(tmp_path / "data.jsonl"), episodes={**SHAPE, "ways": 2}))
    for index in range(20):
        episode = family.to_json(
            family.draw(Stream.of("classification", "meta_train", 0, ways=2, shots=2, queries=2), index)
        )
        for name, *parts in zip(episode["classes"], episode["support"], episode["query"], strict=True):
            for number in [number for part in parts for number in part]:
                assert every[number]["label"] == name
                assert number % 2  # the first of the two


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.integers(0, 8), min_size=12, max_size=30),
    pools=st.integers(1, 4),
    count=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_text_stays_twice_only_where_nothing_else_is_left(
    texts: list[int], pools: int, count: int, seed: int
) -> None:
    """Texts 0 to 8 by row; pools of neighbouring rows, as classes are."""
    rows = np.array([row for row, text in enumerate(texts) if texts.count(text) > 1], np.int64)
    corpus = replace(PLAIN, repeated=np.stack([rows, np.array(texts, np.int64)[rows]]))
    parts = np.array_split(np.arange(len(texts)), pools)
    drawn = draw_rows(corpus, parts, [count] * pools, generator(seed))
    found = [texts[row] for row in np.concatenate(drawn)]
    for part, chosen in zip(parts, drawn, strict=True):
        assert set(chosen) <= set(part)
        assert len(set(chosen)) == count
        others = {texts[row] for row in part} - set(found)
        assert not others or all(found.count(texts[row]) == 1 for row in chosen)


@pytest.mark.parametrize("rows", [["a,x", "b,x"], ["a,x", "a,x", "b,x"], ["a,x", "b,x", "a,y"]])
def test_the_identity_of_a_run(tmp_path: Path, rows: list[str]) -> None:
    """The key itself does not count, so that a run of before goes on with it; what it does to the data counts."""
    config = toy_config(tmp_path)
    path = Path(config.data.path or "")
    own = [f"{letter}{n},{letter}" for letter in "xyzuvwrstpqm" for n in range(6)]
    path.write_text("\n".join(["text,label", *own, *rows]))
    splits = {"train": 0.5, "validation": 0.25, "test": 0.25}
    once, often = (
        build_experiment(toy_config(tmp_path, data__copies=copies, data__splits=splits)).identity
        for copies in (False, True)
    )
    assert once["settings"] == often["settings"]
    assert (once["data"] == often["data"]) == (rows == ["a,x", "b,x"])


def test_a_run_of_before_goes_on_with_its_copies(tmp_path: Path) -> None:
    """Its settings do not have the key, and its episodes drew from all rows."""
    config = toy_config(tmp_path, outer__steps=1, data__copies=True)
    data = Path(config.data.path or "")
    data.write_text(data.read_text() + data.read_text().splitlines()[1] + "\n")
    first = driver.train(config, run_dir := tmp_path / "run", Reporter())
    settings = yaml.safe_load((run_dir / "config.yaml").read_text())
    del settings["data"]["copies"]
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="was made with other data"):
        driver.evaluate(run_dir, [], Reporter())
    assert driver.evaluate(run_dir, ["data.copies=true"], Reporter())["meta_test"] == first["meta_test"]
