"""What stands out in data is counted, with one example each."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_helpers import labels as labels_of
from source_helpers import texts as texts_of

from distmeta.data.labelled import Source
from distmeta.data.look import look

ROWS = [("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"), ("e", "y")]


def source_of(rows: list[tuple[str, str]], **more: Any) -> Source:
    texts, labels = (list(column) for column in zip(*rows, strict=True))
    tasks = more.pop("tasks", None)
    return replace(Source.of(texts, labels, tasks=tasks), **more)


def test_plain_data() -> None:
    seen = look(source_of(ROWS), {"meta_train": ["x"], "meta_test": ["y"]}, 0)
    assert (seen.rows, seen.classes, seen.smallest, seen.largest) == (5, 2, ("y", 2), ("x", 3))
    assert seen.remarks() == ["5 rows in 2 classes of 2 ('y') to 3 ('x')"]


@pytest.mark.parametrize(
    ("more", "count", "remark"),
    [
        ([("a", "x"), ("a", "x")], ("copies_kept", 2), "2 rows are copies of others"),
        ([("a", "y"), ("b", "z")], ("contradictions", 2), "2 texts have several labels, such as 'a': 'x' and 'y'"),
        ([("f" * 99, "x"), ("f" * 99, "y")], ("contradictions", 1), "such as '" + "f" * 59 + "…': 'x' and 'y'"),
        (
            [("f", "x ")],
            ("alike", 1),
            "1 pairs of labels look alike, such as 'x' and 'x ', in meta_train and meta_test",
        ),
        ([("f", "X")], ("alike", 1), "such as 'x' and 'X'"),
        ([("f", "e\u0301"), ("g", "\u00e9")], ("alike", 1), "such as 'e\u0301' and '\u00e9', in meta_test"),
        ([("f", "\uff58")], ("alike", 1), "such as 'x' and '\uff58'"),
        ([("f", "a  b"), ("g", "A\tb")], ("alike", 1), "such as 'a  b' and 'A\\tb'"),
        ([("f", "z")], ("left_out", 1), "1 classes with fewer than data.min_examples=2 are left out"),
    ],
)
def test_what_stands_out(more: list[tuple[str, str]], count: tuple[str, int], remark: str) -> None:
    rows = [*ROWS, *more]
    others = sorted({label for _, label in rows} - {"x"})
    seen = look(source_of(rows), {"meta_train": ["x"], "meta_test": others}, 2)
    assert getattr(seen, count[0]) == count[1]
    assert sum(remark in line for line in seen.remarks()) == 1
    assert seen.as_json()[count[0]] == count[1]


def test_a_pair_in_two_splits_comes_first() -> None:
    rows = [("a", "x"), ("b", "X"), ("c", "y"), ("d", "Y")]
    seen = look(source_of(rows), {"meta_train": ["x", "X", "y"], "meta_test": ["Y"]}, 0)
    assert (seen.alike, seen.twins, seen.twins_splits) == (2, ("y", "Y"), ("meta_train", "meta_test"))


def test_tasks_may_label_a_text_in_their_own_ways() -> None:
    rows = [("good", "a/1"), ("good", "b/0"), ("good", "b/1")]
    assert look(source_of(rows[:2], tasks=["a", "b"]), {}, 0).contradictions == 0
    assert look(source_of(rows, tasks=["a", "b", "b"]), {}, 0).contradiction == ("good", "b/0", "b/1")


def test_what_reading_assumed_is_passed_on() -> None:
    seen = look(source_of(ROWS, remarks=("the columns are separated by tabs",), unlabelled=3), {}, 0)
    assert seen.unlabelled == 3
    assert "the columns are separated by tabs" in seen.remarks()


@pytest.mark.timeout(20)
def test_many_labels_that_look_alike_take_no_time() -> None:
    """Fifty million pairs, of which none is made."""
    names = [" " * (number % 100) + "\t" * (number // 100) + "x" for number in range(10_000)]
    seen = look(Source.of(names, names), {"meta_train": names[1:3], "meta_test": names[3:]}, 0)
    assert (seen.alike, seen.twins, seen.twins_splits) == (
        49_995_000,
        (names[1], names[3]),
        ("meta_train", "meta_test"),
    )


LABELS = ["x", "X", " x", "y", "Y", "z"]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(*map(st.sampled_from, ("ab", "abc", LABELS))), min_size=1, max_size=12),
    used=st.lists(st.sampled_from([None, "meta_train", "meta_test"]), min_size=6, max_size=6),
    has_tasks=st.booleans(),
)
def test_counts_are_those_of_counting_pair_by_pair(
    rows: list[tuple[str, str, str]], used: list[str | None], has_tasks: bool
) -> None:
    tasks, texts, labels = (list(column) for column in zip(*rows, strict=True))
    source = Source.of(texts, labels, tasks=tasks if has_tasks else None)
    rows = rows if has_tasks else [("", text, label) for _, text, label in rows]
    source = source.joined() if has_tasks else source
    named = [(task, text, f"{task}/{label}" if has_tasks else label) for task, text, label in rows]
    names = list(dict.fromkeys(label for _, _, label in named))
    split_of = {name: split for name, split in zip(names, used, strict=False) if split}
    splits = {split: [name for name in names if split_of.get(name) == split] for split in ("meta_train", "meta_test")}
    seen, once = look(source, splits, 0), source.without_copies()
    assert seen.copies_kept == len(named) - len(set(named)) == sum(once.copies.values())
    assert list(zip(texts_of(once), labels_of(once), strict=True)) == list(
        dict.fromkeys((text, label) for _, text, label in named)
    )
    found_of = {
        key: {row[2]: None for row in named if row[:2] == key} for key in dict.fromkeys(row[:2] for row in named)
    }
    several = [(text, *list(found)[:2]) for (_, text), found in found_of.items() if len(found) > 1]
    assert (seen.contradictions, seen.contradiction) == (len(several), several[0] if several else None)
    alike = [pair for pair in combinations(names, 2) if len({name.strip().casefold() for name in pair}) == 1]
    assert seen.alike == len(alike)
    apart = [pair for pair in alike if len({split_of.get(name) for name in pair} - {None}) == 2]
    both = [pair for pair in alike if {*pair} <= split_of.keys()]
    assert seen.twins in (apart or both or alike) if alike else seen.twins is None
    assert (seen.twins_splits is None) == (not both)
