"""Runs beside one another on the same episodes."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distmeta.errors import CheckpointError
from distmeta.report.compare import compare
from distmeta.report.progress import Reporter


def evaluated(
    folder: Path,
    scores: list[float],
    shots: int = 1,
    manifest: str = "m",
    ways: int | None = 5,
    theta: str = "t",
    **score: Any,
) -> tuple[str, Path]:
    kind = {"name": "accuracy", "is_share": True, "higher_is_better": True, **score}
    shape = {"shots": shots} if ways is None else {"ways": ways, "shots": shots}
    title = f"{shots}-shot" if ways is None else f"{ways}-way {shots}-shot"
    about = {"family": "toy", "shape": shape, "title": title, "score": kind}
    content = {**about, "manifest_sha256": manifest, "scores": scores, "format": 1, "meta_params_sha256": theta}
    folder.mkdir(exist_ok=True)
    (folder / f"scores-5way-{shots}shot.json").write_text(json.dumps(content))
    return folder.name, folder


def reporter() -> Reporter:
    return Reporter(Console(file=io.StringIO(), width=200))


def test_differences_are_paired_by_episode(tmp_path: Path) -> None:
    """Scores that vary alike: means 0.5 ± 12.706 · 0.2 each (t of two), difference 0.1 in both episodes."""
    a = evaluated(tmp_path / "a", [0.3, 0.7])
    b = evaluated(tmp_path / "b", [0.2, 0.6])
    shown = reporter()
    (row,) = compare([a, b], shown)["meta_test"]
    assert (row["shape"], row["title"], row["episodes"]) == ({"ways": 5, "shots": 1}, "5-way 1-shot", 2)
    own, other = row["runs"]
    assert (own["run"], own["accuracy"], own["difference"]) == ("a", 0.5, 0.0)
    assert own["ci95"] == pytest.approx(12.706 * 0.2, rel=1e-4)
    assert other["run"] == "b"
    assert (other["accuracy"], other["difference"]) == pytest.approx((0.4, 0.1))
    assert other["difference_ci95"] == pytest.approx(0, abs=1e-12)
    text = shown.console.file.getvalue()  # type: ignore[attr-defined]
    assert "+10.0 ± 0.0" in text
    assert "a's accuracy minus the row's" in text


def test_shapes_are_listed_by_shots(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / name, [2.0, 4.0], shots=shots) for name in "ab" for shots in (10, 2)][1::2]
    assert [row["shape"]["shots"] for row in compare(runs, reporter())["meta_test"]] == [2, 10]


def test_a_score_of_which_less_is_better(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"name": "mse", "is_share": False, "higher_is_better": False}
    runs = [
        evaluated(tmp_path / name, scores, ways=None, **kind) for name, scores in (("a", [1.0, 2.0]), ("b", [2.0, 4.0]))
    ]
    shown = reporter()
    assert compare(runs, shown)["meta_test"][0]["runs"][1]["difference"] == -1.5
    text = " ".join(shown.console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "lower is better" in text
    assert "way" not in text  # tasks without classes have none


def test_other_episodes_are_refused(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / name, [0.5, 0.5], manifest=name) for name in "ab"]
    with pytest.raises(CheckpointError, match=r"b: was evaluated on other episodes than a \(such as 5-way 1-shot\)"):
        compare(runs, reporter())


def test_a_run_without_scores_is_refused(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", [0.5, 0.5])
    (tmp_path / "b").mkdir()
    with pytest.raises(CheckpointError, match="b: has no scores of meta-test; run `distmeta evaluate b`"):
        compare([a, ("b", tmp_path / "b")], reporter())
    (tmp_path / "b" / "scores-5way-1shot.json").write_text('{"format": 1, "title": "5-way 1-shot"}')
    with pytest.raises(CheckpointError, match="b: its scores cannot be read"):
        compare([a, ("b", tmp_path / "b")], reporter())


def test_scores_of_different_meta_parameters_are_refused(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", [0.5, 0.5])
    b = evaluated(tmp_path / "b", [0.5, 0.5])
    evaluated(tmp_path / "b", [0.5, 0.5], shots=5, theta="other")
    found = (
        "b: scores-5way-1shot.json and scores-5way-5shot.json are of different meta-parameters; "
        "run `distmeta evaluate b`"
    )
    for runs in ([a, b], [b, a]):
        with pytest.raises(CheckpointError) as caught:
            compare(runs, reporter())
        assert str(caught.value) == found


def test_scores_of_another_format_are_refused(tmp_path: Path) -> None:
    """Those of before there were numbers have none."""
    a, b = (evaluated(tmp_path / name, [0.5, 0.5]) for name in "ab")
    path = tmp_path / "b" / "scores-5way-1shot.json"
    content = json.loads(path.read_text())
    for number, said in ((None, 0), (2, 2)):
        path.write_text(json.dumps({**content, "format": number} if number else {"scores": content["scores"]}))
        with pytest.raises(CheckpointError, match=rf"b: {path.name} is of format {said}, not 1; run `distmeta eval"):
            compare([a, b], reporter())
