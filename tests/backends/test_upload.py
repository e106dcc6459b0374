"""What a job takes to the cluster: what is named and stays behind is refused before the upload."""

import zipfile
from pathlib import Path

import pytest
import yaml

from distmeta.backends import submit
from distmeta.backends.upload import EXCLUDES, check_uploaded
from distmeta.errors import ConfigError

FILES = (
    "job.yaml",
    "data/a.csv",
    "data/b.csv",
    "data/deep/c.csv",
    "teacher/learner/x",
    "runs/r/x",
    "my.key",
    "a b.csv",
)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "ignored", "message"),
    [
        (
            "data.path=data/a.csv",
            {".gitignore": "*.csv"},
            r"data.path: data/a.csv is not uploaded, because of .*gitig",
        ),
        ("data.path=data/a.csv", {".gitignore": "data/"}, r"data.path: data/a.csv is not uploaded, because of .*gitig"),
        ("data.path=data/a.csv", {"data/.gitignore": "a.csv"}, r"a.csv is not uploaded, because of .*/data/.gitignore"),
        (
            "data.path=./data//a.csv",
            {".rayignore": "/data/a.*"},
            r"data/a.csv is not uploaded, .*/.rayignore",
        ),
        ("data.path=data", {".gitignore": "data"}, r"data.path: data/a.csv is not uploaded"),
        ("data.path=a b.csv", {".gitignore": "a b.csv"}, r"data.path: a b.csv is not uploaded"),
        ("data.splits=data/a.csv", {".gitignore": "*.csv"}, r"data.splits: data/a.csv is not uploaded"),
        ("model.path=data", {".gitignore": "data"}, r"model.path: data/a.csv is not uploaded"),
        ("tasks.one.data.path=data/a.csv", {".gitignore": "*.csv"}, r"tasks.one.data.path: data/a.csv is not uploaded"),
        (
            "algorithm.teacher=runs/r",
            {},
            r"algorithm.teacher: runs/r/x is not uploaded, because of what distmeta never",
        ),
        ("data.path=my.key", {}, r"data.path: my.key is not uploaded, because of what distmeta never uploads"),
        ("outer.steps=3", {".gitignore": "*.yaml"}, r"CONFIG: job.yaml is not uploaded"),
        (
            "data.path=none.csv",
            {},
            r"data.path: 'none.csv' does not exist in .*, which is uploaded; correct it",
        ),
        ("data.path=-", {}, r"data.path: a job has no standard input; name a file in"),
        ("data.path=../x.csv", {}, r"data.path: '../x.csv' is not inside"),
        ("data.path=data/../../x.csv", {}, r"data.path: 'data/../../x.csv' is not inside"),
        ("outer.stepz=3", {}, r"outer.stepz: unknown key"),
    ],
)
def test_what_is_named_and_stays_behind_is_refused(
    top: Path, settings: str, ignored: dict[str, str], message: str
) -> None:
    for name, content in ignored.items():
        (top / name).write_text(content)
    if settings.startswith("tasks"):
        (top / "job.yaml").write_text(yaml.safe_dump({"tasks": {"two": {"kind": "sinusoid"}}}))
    with pytest.raises(ConfigError, match=message):
        submit.train_command(top / "job.yaml", [settings], top)


@pytest.mark.parametrize(
    ("setting", "ignored"),
    [
        ("data.path=data/a.csv", "data/b.csv"),
        ("data.path=data/a.csv", "*.csv\n!data/a.csv"),
        ("data.path=data/a.csv", "# data"),
        ("data.path=/shared/a.csv", ""),
        ("data.path=~/a.csv", ""),
        ("data.path=hub:owner/name", ""),
        ("data.path=attack", ""),
        ("model.path=package:some/model", ""),
    ],
)
def test_what_is_uploaded_or_elsewhere_is_taken(top: Path, setting: str, ignored: str) -> None:
    (top / ".gitignore").write_text(ignored)
    assert "train job.yaml" in submit.train_command(top / "job.yaml", [setting], top)


def test_a_configuration_outside_is_refused(top: Path) -> None:
    with pytest.raises(ConfigError, match=r"job.yaml: not inside .*; run this in a folder that contains it"):
        submit.train_command(top / "job.yaml", [], top / "data")


def test_a_part_of_a_folder_that_stays_behind_is_remarked_on(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / ".gitignore").write_text("b.csv")
    submit.train_command(top / "job.yaml", ["data.path=data"], top)
    assert capsys.readouterr().err == (
        f"distmeta: data.path: 1 of 3 files are not uploaded, such as data/b.csv, because of {top}/.gitignore\n"
    )


@pytest.mark.parametrize(
    "ignored",
    [
        {".gitignore": "*.csv"},
        {".gitignore": "data/\n!data/a.csv"},
        {".gitignore": "data/*\n!data/a.csv"},
        {".gitignore": "*.csv", "data/.gitignore": "!a.csv"},
        {".gitignore": "**/c.csv\n\\#x\n", "data/.rayignore": "/a.csv\nteacher"},
        {"data/.gitignore": "deep/"},
        {".gitignore": "/a.csv\nlearner\n"},
    ],
)
def test_it_says_of_each_file_what_ray_does(top: Path, ignored: dict[str, str], tmp_path: Path) -> None:
    """Ray's own archive holds the files that the check lets pass, and no other."""
    from ray._private.runtime_env import packaging

    for name, content in ignored.items():
        (top / name).write_text(content)
    archive = tmp_path.parent / f"{tmp_path.name}.zip"
    packaging._zip_files(str(top), EXCLUDES, str(archive), include_gitignore=True)
    taken = set(zipfile.ZipFile(archive).namelist())
    for name in FILES[1:]:
        try:
            check_uploaded(top / "job.yaml", {"data": {"path": name}}, top)
            passes = True
        except ConfigError:
            passes = False
        assert passes == (name in taken), name


def test_an_ignore_file_of_another_encoding_is_read(top: Path) -> None:
    (top / ".gitignore").write_bytes("café\n*.csv\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"data/a\.csv is not uploaded"):
        submit.train_command(top / "job.yaml", ["data.path=data/a.csv"], top)
