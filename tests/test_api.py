"""The package from Python, as in a notebook."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy import toy_config, toy_settings

import distmeta
from distmeta.errors import ConfigError

FEW = {"outer__steps": 1, "evaluation__episodes": 2, "evaluation__curve_steps": 0}


def test_train_evaluate_load(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, **FEW)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    given = toy_config(tmp_path, **FEW)
    results = [
        distmeta.train(tmp_path / "toy.yaml", run_dir=str(tmp_path / "file"), seed=3),
        distmeta.train(settings, **{"run_dir": str(tmp_path / "mapping"), "seed": 3}),
        distmeta.train(given, run_dir=str(tmp_path / "config"), seed=3),
    ]
    assert len({result["meta_params_sha256"] for result in results}) == 1
    assert "seed" not in settings, "what was given is not changed"
    again = distmeta.evaluate(tmp_path / "file", evaluation__episodes=3)
    assert again["meta_test"][0]["episodes"] == 3
    assert distmeta.load(tmp_path / "file").about["meta_params_sha256"] == results[0]["meta_params_sha256"]


def test_mistakes_are_named_by_their_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^outer.stepz: unknown key; did you mean outer.steps"):
        distmeta.train(toy_settings(tmp_path), outer__stepz=1)


def test_registries_list_what_is_there() -> None:
    found = distmeta.registries()
    assert {"maml", "protonet"} <= set(found["algorithms"].names())
    assert {"hf", "text_cnn"} <= set(found["models"].names())
    assert {"text", "token"} <= set(found["heads"].names())
    assert {"classification", "sinusoid"} <= set(found["families"].names())


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, distmeta; sys.exit(bool({'torch', 'ray', 'mlflow', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
