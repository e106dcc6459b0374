"""What a typed value means: text where its key takes text, else a value of YAML 1.2."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_helpers import value_of

from distmeta.config.load import build_options, load_config, override, validate
from distmeta.config.syntax import dump_yaml, parse_yaml
from distmeta.config.typed import typed
from distmeta.errors import ConfigError
from distmeta.models.text_cnn import TextCNN
from distmeta.runs import directory

AS_TYPED = {
    "data.label": ["no", "true", "on", "y", "1.10", "010", "0x10", "1_000", "1:30", ".inf", "2024-11-22", "null", "~"],
    "tracking.experiment": ["2024-11-22", "2024-11-22 10:00:00", "1e3", "00", "null"],
    "data.split": ["1", "01", "1.0"],
    "data.subset": ["no", "1.10", "nullable"],
    "data.splits": ["2024", "no"],
    "inner.adapt": ["top:2", "no"],
}
ONLY_IN_A_SHELL = {
    "data.path": ["set #2/right.csv", "#2.csv", "a: b.csv", "*.csv", "&a", "!x", "%x", "@x", "`x`", "- x", "-",
                  "? x", "|"],
    "data.label": ["=x", "a\nb", "é", "x]", "it's", "!!str 1"],
    "model.freeze": ["*embeddings*"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in AS_TYPED.items() for text in texts])
def test_text_stays_as_typed_where_a_key_takes_text(key: str, text: str, tmp_path: Path) -> None:
    section, name = key.split(".")
    (tmp_path / "config.yaml").write_text(f"{section}:\n  {name}: {text}  # a comment\n")
    assert value_of(load_config(tmp_path / "config.yaml"), key) == text
    config = validate(override({}, [f"{key}={text}"]))
    assert value_of(config, key) == text
    # A run reads its own settings back.
    directory.write_config(tmp_path / "config.yaml", config)
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in ONLY_IN_A_SHELL.items() for text in texts])
def test_no_sign_of_yaml_counts_in_a_shell_where_a_key_takes_text(key: str, text: str) -> None:
    assert value_of(validate(override({}, [f"{key}={text}"])), key) == text


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("outer.lr=1e-3", "outer.lr", 0.001),
        ("outer.steps=1_000", "outer.steps", 1000),
        ("outer.clip_norm=null", "outer.clip_norm", None),
        ("outer.clip_norm=", "outer.clip_norm", None),
        ("run_dir=", "run_dir", None),
        ("run_dir=~", "run_dir", None),
        ("run_dir=NULL", "run_dir", None),
        ("data.subset=  x  ", "data.subset", "x"),
        ('data.subset="  x  "', "data.subset", "  x  "),
        ("data.subset='null'", "data.subset", "null"),
        ('data.subset="\\ud83d\\ude00"', "data.subset", "😀"),  # as JSON writes it
        ("inner.learn_lr=true", "inner.learn_lr", True),
        ("inner.learn_lr=yes", "inner.learn_lr", True),
        ("inner.adapt=[head, 010, no]", "inner.adapt", ["head", "010", "no"]),
        ("episodes.only=[2024-11-22, '*']", "episodes.only", ("2024-11-22", "*")),
        ("data.splits={train: 0.5, validation: 1e-1}", "data.splits.validation", 0.1),
        ("outer.optimizer=sgd", "outer.optimizer", "sgd"),
        ("cluster.workers={max: 08.0}", "cluster.workers.max", 8),
        ("cluster.resources_per_worker={1: 2}", "cluster.resources_per_worker", {"1": 2.0}),
        ("tasks.a.data.label=no", "tasks.a.data.label", "no"),
        ("model.widths=[1, 2]", "model.widths", [1, 2]),
        ("model.normalize=yes", "model.normalize", "yes"),
        ("model.x=2024-11-22", "model.x", "2024-11-22"),
        ("model.x=1:30", "model.x", "1:30"),
        ("model.x=a #b", "model.x", "a #b"),
        ("algorithm.scale=1E2", "algorithm.scale", 100.0),
        ("algorithm.scale=-.inf", "algorithm.scale", -math.inf),
        ("algorithm.scale=0x1F", "algorithm.scale", 31),
        ("algorithm.scale=0o17", "algorithm.scale", 15),
        ("algorithm.scale=.5", "algorithm.scale", 0.5),
        ("algorithm.scale=TRUE", "algorithm.scale", True),
        ("algorithm.scale=tRUE", "algorithm.scale", "tRUE"),
        ("tune.space.outer.lr={loguniform: [1e-5, 1]}", "tune.space.outer.lr", None),
        ("tune={space: {outer.lr: {choice: [1e-5, no, null]}}}", "tune.space.outer.lr", [1e-5, "no", None]),
    ],
)  # fmt: skip
def test_the_meaning_of_a_setting(setting: str, key: str, value: Any) -> None:
    config = validate(override({}, [setting]))
    if key.startswith("tune."):
        assert config.tune is not None
        dimension = config.tune.space["outer.lr"]
        assert dimension.values == value
        assert value or dimension.ends == (1e-5, 1.0)
        return
    found = value_of(config, key)
    assert found == value
    assert type(found) is type(value)


def test_every_number_and_word_of_yaml() -> None:
    text = "[1e-3, -2E5, 1.5e3, 12, +3, 00, 1_0.5, 1e, null, ~, , True, off, .NaN, 0b1]"
    *found, nan, other = typed(parse_yaml(text.replace(", ,", ", '',"), ""), Any)
    assert found == [0.001, -200000.0, 1500.0, 12, 3, 0, 10.5, "1e", None, None, "", True, "off"]
    assert math.isnan(nan)
    assert other == "0b1"


@pytest.mark.parametrize(
    "text", ["1e3", "08", "010", "0o17", "no", "null", "", "a: b", "# c", "<<", "=", "é\n 😀", "1_0"]
)
def test_what_is_written_is_read_back(text: str) -> None:
    content = {"model": {"x": text, "y": [text, 1e-5, None, True]}, "list": [{"x": math.inf}]}
    assert typed(parse_yaml(dump_yaml(content), ""), Any) == content
    assert yaml.safe_load(dump_yaml({"x": text})) == {"x": text}  # other programs read it too


REFUSED = [
    ("seed=010", "seed: 010 with its leading 0 can mean 10 or 8; write 10 or 8"),
    ("seed=-010", "seed: -010 with its leading 0 can mean -10 or -8; write -10 or -8"),
    ("outer.steps=08", "outer.steps: 08 with its leading 0 can mean 8; write 8"),
    ("evaluation.shots=[1, 05]", "evaluation.shots.1: 05 with its leading 0 can mean 5; write 5"),
    (
        "algorithm.x=007",
        "algorithm.x: 007 with its leading 0 can mean 7; write 7, or for text "
        "'algorithm.x=\"007\"' in a shell, x: \"007\" in a file",
    ),
    ("seed=" + "9" * 5000, "seed: a number of 5000 digits; give one of fewer digits"),
    ("seed=1:30", "seed: invalid value '1:30'; input should be a valid integer"),
    ("seed=2024-11-22", "seed: invalid value '2024-11-22'; input should be a valid integer"),
    ("inner.learn_lr=maybe", "inner.learn_lr: invalid value 'maybe'; give true or false"),
    ("outer.optimizer=null", "outer.optimizer: invalid value 'null'; input should be 'sgd', 'adam' or 'adamw'"),
    ("tracking.experiment=", "tracking.experiment: invalid value None; input should be a valid string"),
    ("data.path=[a] b.csv", "data.path line 1: not valid YAML (expected '<document start>', but found '<scalar>'); fix "
     "the YAML, or for text write 'data.path=\"TEXT\"'"),
    ("data.path=[a]", "data.path: invalid value ['a']; input should be a valid string; for text write"),
    ('data.path="\\UFFFFFFFF"', "data.path: not valid YAML"),
    ('data.path="\\ud800"', "data.path: not valid YAML"),
    ("evaluation={x: !!int a}", "evaluation line 1: the tag 'tag:yaml.org,2002:int' is not for settings"),
    ("evaluation={<<: 3}", "evaluation line 1: '<<' takes a mapping or a list of mappings"),
    ("evaluation={[a]: 3}", "evaluation line 1: a key that is not text"),
    ("evaluation={1: x}", "evaluation.1: unknown key"),
    ("evaluation=" + "[" * 3000, "evaluation: not valid YAML (nested too deeply"),
    ("outer.steps==5", "outer.steps: invalid value '=5'"),
    ("outer.steps=–5", "outer.steps: invalid value '–5'"),
    ("—outer.steps=5", "—outer: unknown key"),
    ("outer.steps =5", "outer.steps : unknown key; did you mean outer.steps?"),
    ("=5", "'=5': not of the form key=value"),
    ("outer.=5", "'outer.=5': a part of the key is empty; check its dots"),
    (".outer=5", "'.outer=5': a part of the key is empty; check its dots"),
    ("outer..steps=5", "'outer..steps=5': a part of the key is empty; check its dots"),
    ("config.yaml=5", "config: unknown key"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "message"), REFUSED)
def test_what_has_two_meanings_or_none_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(override({}, [setting]))
    assert str(caught.value).startswith(message)


def test_the_last_of_two_settings_of_a_key_counts() -> None:
    assert validate(override({}, ["seed=1", "seed=2"])).seed == 2


def test_a_number_where_an_option_takes_text() -> None:
    message = (
        "model.vocabulary: invalid value 1; input should be 'words' or 'wordpieces'",
        "algorithm.teacher: invalid value 2024; input should be a valid string; for text write "
        '\'algorithm.teacher="TEXT"\' in a shell, teacher: "TEXT" in a file',
    )
    from distmeta.algorithms.distill import Distill

    options = validate(override({}, ["model.vocabulary=1", "algorithm.teacher=2024"]))
    for cls, section, key, said in (
        (TextCNN, options.model, "model.vocabulary", message[0]),
        (Distill, options.algorithm, "algorithm.teacher", message[1]),
    ):
        with pytest.raises(ConfigError) as caught:
            build_options(cls, section.model_extra or {}, {key.split(".")[1]: key})
        assert str(caught.value) == said


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n" for last, name in zip("abcde", "bcdef", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{last}'] * 10)}]}}\n"
    for last, name in zip("abcdefg", "bcdefgh", strict=True)
)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "line 1: its aliases stand for over 100,000 values; use fewer aliases"),
        (MERGE_BOMB, "line 1: its aliases stand for over 100,000 values; use fewer aliases"),
        ("a: &a [*a]", "not valid YAML (nested too deeply, or an alias stands for what it is in)"),
        ("a: &a {<<: *a}", "not valid YAML (nested too deeply, or an alias stands for what it is in)"),
        ("a: *b", "line 1: not valid YAML (found undefined alias 'b')"),
        ("model: {x: !!python/object/apply:os.getcwd []}", "line 1: the tag"),
        ("model: !!set {x}", "line 1: the tag"),
        ("seed: 1\n---\nseed: 2", "line 2: not valid YAML (but found another document)"),
        ("data:\n\tpath: x", "line 2: not valid YAML"),
        ("", "holds no sections"),
        ("# only a comment", "holds no sections"),
        ("- a", "holds no sections"),
        ("just text", "holds no sections"),
        ("1: x", "1: unknown key"),
        ("? [a]\n: x", "line 1: a key that is not text"),
        ("~: x", "~: unknown key"),
        ("yes: x", "yes: unknown key"),
        ("evaluation: {shots: [1], <<: {seed: 3}, shots: [2]}", "shots: given twice in the mapping at line 1"),
        ("seed: 1\n'seed': 2", "seed: given twice"),
        ("seed: \x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_settings(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {label: Größe}\n", encoding=encoding)
    assert load_config(tmp_path / "config.yaml").data.label == "Größe"


def test_a_folder_is_no_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ("{<<: *shape, shots: [1]}", {"queries": 7, "shots": [1]}),
        ("{shots: [1], <<: *shape}", {"queries": 7, "shots": [1]}),
        ("{<<: [*shape, *other]}", {"queries": 7, "shots": [5], "seed": 4}),
        ("{<<: [*other, *shape], seed: 5}", {"queries": 9, "shots": [5], "seed": 5}),
        ("{<<: *nested}", {"queries": 7, "shots": [2]}),
        ("*shape", {"queries": 7, "shots": [5]}),
    ],
)
def test_merged_mappings_are_overridden(evaluation: str, expected: dict[str, Any]) -> None:
    text = (
        "shape: &shape {queries: 7, shots: [5]}\nother: &other {queries: 9, seed: 4}\n"
        f"nested: &nested {{<<: *shape, shots: [2]}}\nevaluation: {evaluation}\n"
    )
    assert json.dumps(typed(parse_yaml(text, ""), Any)["evaluation"], sort_keys=True) == json.dumps(
        expected, sort_keys=True
    )


def test_a_setting_changes_one_use_of_an_alias() -> None:
    content = parse_yaml("episodes: &same {queries: 3}\nevaluation: *same", "")
    config = validate(override(content, ["evaluation.queries=4"]))
    assert (config.episodes.queries, config.evaluation.queries) == (3, 4)
