"""Another algorithm or model than the file's: what only the file's own has is left out, in one remark."""

from pathlib import Path
from typing import Any

import pytest
from toy import toy_settings

import distmeta
from distmeta.config import RunConfig
from distmeta.config.load import load_config
from distmeta.errors import ConfigError
from distmeta.runs import directory
from distmeta.runs.settings import fitting, make_learner, make_model_options

JOBS = Path(__file__).parents[2] / "jobs"


def fit(job: str, *settings: str) -> tuple[RunConfig, list[str]]:
    notes: list[str] = []
    config = fitting(load_config(JOBS / job, settings), notes.append)
    return config, notes


@pytest.mark.parametrize(
    ("job", "settings", "left_out"),
    [
        ("from_scratch.yaml", ["algorithm.name=reptile"], "algorithm.scale"),
        ("from_scratch.yaml", ["algorithm.name=protonet"], "inner.lr, inner.steps, inner.adapt"),
        ("from_scratch.yaml", ["algorithm={name: reptile}"], None),
        ("from_scratch.yaml", ["algorithm.name=protomaml"], None),
        ("from_scratch.yaml", ["seed=3"], None),
        ("from_scratch.yaml", ["model.name=text_rnn"], "model.filters, model.widths"),
        (
            "from_scratch.yaml",
            ["model.name=text_rnn", "algorithm.name=maml"],
            "algorithm.scale, model.filters, model.widths",
        ),
        ("quickstart.yaml", ["model.name=text_cnn"], "model.path, model.freeze"),
        ("tune_attack.yaml", ["model.name=text_cnn"], "model.path, model.freeze, tune.space.model.freeze"),
    ],
)
def test_what_only_the_former_one_had_is_left_out(
    job: str, settings: list[str], left_out: str | None, tmp_path: Path
) -> None:
    config, notes = fit(job, *settings)
    make_learner(config)
    make_model_options(config)
    assert [note.split(" left out")[0] for note in notes] == ([f"note: {left_out}"] if left_out else [])
    # The run's own settings hold only what counts.
    directory.write_config(tmp_path / "config.yaml", config)
    assert load_config(tmp_path / "config.yaml") == config


def test_options_that_the_new_one_has_too_stay() -> None:
    config, _ = fit("from_scratch.yaml", "algorithm.name=reptile", "model.name=text_rnn")
    assert (config.inner.lr, config.inner.steps, config.inner.adapt) == (1.0, 5, "head")
    assert config.model.model_extra == {"embedding_size": 200, "dropout": 0.3, "normalize": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["algorithm.name=reptile", "algorithm.scale=3"], "algorithm.scale: not an option of Reptile"),
        (["algorithm={name: reptile, scale: 3}"], "algorithm.scale: not an option of Reptile"),
        (["algorithm.name=protonet", "inner.lr=1"], "inner.lr: protonet does not learn a task by gradient steps"),
        (["algorithm.name=reptle"], "algorithm.name: 'reptle' is unknown; did you mean reptile?"),
        (["model.name=text_rnn", "model.widths=[2]"], "model.widths: not an option of TextRNN"),
    ],
)
def test_what_was_given_as_a_setting_is_never_left_out(settings: list[str], message: str) -> None:
    def make() -> None:
        config, _ = fit("from_scratch.yaml", *settings)
        make_learner(config)
        make_model_options(config)

    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("distmeta.runs.train.train", lambda *given: seen.extend(given))
    content = toy_settings(tmp_path, algorithm={"name": "protomaml", "scale": 2})
    distmeta.train(content, algorithm__name="protonet")
    assert seen[0].algorithm.model_extra == {"scale": 2}
    assert seen[0].inner.lr is None
