"""Files of former formats: `former_run` was written before there were numbers; it is read, or refused by name."""

import json
from pathlib import Path

import pytest

from distmeta.errors import CheckpointError
from distmeta.report import scores
from distmeta.runs import checkpoint, directory
from distmeta.storage import require_format
from distmeta.tune.records import Records, Trial

FORMER = Path(__file__).with_name("runs") / "former_run"


def test_settings_of_a_former_run_are_read() -> None:
    config, run = directory.read(FORMER, [])
    assert (config.outer.steps, config.model.name) == (2, "text_cnn")
    assert run["mlflow_run_id"] == "0"


def test_a_former_checkpoint_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(FORMER)
    assert str(caught.value) == (
        f"{FORMER}/checkpoints/step-00000002: is of format 1, and this version of distmeta reads format 2; "
        "use the version that wrote it, or start a new run"
    )


def test_former_scores_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="is of format 0, not 1; run `distmeta evaluate former`"):
        scores.read("former", FORMER)


def test_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    content = json.loads((FORMER / directory.RUN).read_text())
    (tmp_path / directory.CONFIG).write_text((FORMER / directory.CONFIG).read_text())
    (tmp_path / directory.RUN).write_text(json.dumps({**content, "format": 9}))
    with pytest.raises(CheckpointError, match=r"run.json: is of format 9, and this version .* reads format 1 and 2"):
        directory.read(tmp_path, [])
    records = Records(tmp_path)
    records.write(Trial("trial-0000", {"inner.lr": 0.1}))
    assert records.read("trial-0000").values == {"inner.lr": 0.1}
    path = tmp_path / "trial-0000.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match=r"trial-0000.json: is of format 2"):
        records.read("trial-0000")


def test_a_file_without_a_number_is_of_the_first_format(tmp_path: Path) -> None:
    require_format({}, tmp_path, 1)
    with pytest.raises(CheckpointError, match="is of format 1"):
        require_format({}, tmp_path, 2)
