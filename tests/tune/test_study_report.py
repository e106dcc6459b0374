"""Tables and plots of a study, from made-up trials."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy import toy_config
from tune_helpers import ACCURACY

from distmeta.errors import CheckpointError
from distmeta.report.progress import Reporter
from distmeta.tune import plots, report
from distmeta.tune.records import Point, Records, Trial, best, best_so_far
from distmeta.tune.space import Space
from distmeta.types import Score

MSE = Score("mse", is_share=False, higher_is_better=False)
SPACE = {
    "algorithm.name": {"choice": ["maml", "protonet"]},
    "inner.lr": {"loguniform": [0.01, 1.0], "when": {"algorithm.name": "maml"}},
    "outer.lr": {"uniform": [0.0, 1.0]},
    "outer.weight_decay": {"uniform": [0.0, 1.0]},
}


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(toy_config(tmp_path, tune__space=SPACE))


def made_up(score: Score, count: int = 30) -> list[Trial]:
    """The outer rate decides; every fifth trial is stopped early, and one fails."""
    trials = []
    for n in range(count):
        rate = n / count
        value = rate if score.higher_is_better else 1 - rate
        values: dict[str, Any] = {
            "algorithm.name": "protonet",
            "outer.lr": rate,
            "outer.weight_decay": n * 7 % count / count,
        }
        if n % 2:
            values |= {"algorithm.name": "maml", "inner.lr": 0.1}
        status: Any = "stopped" if n % 5 == 4 else "finished"
        trials.append(
            Trial(f"trial-{n:04}", values, status, curve=[Point(2, 0.5, 0.1, 1.0), Point(6, value, 0.1, 3.0)])
        )
    trials[3].status, trials[3].reason, trials[3].curve = "failed", "it diverged", []
    return trials


@pytest.mark.parametrize("score", [ACCURACY, MSE])
def test_what_mattered_is_the_key_that_decided(space: Space, score: Score) -> None:
    shares = plots.importances(space, score, made_up(score))
    assert list(shares) == ["outer.lr", "outer.weight_decay", "algorithm.name"] or shares["outer.lr"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
    assert "inner.lr" not in shares  # only some trials have it


def test_what_mattered_is_judged_where_half_of_the_trials_came_to(space: Space) -> None:
    """After two steps the weight decay decides; of those few that went on, the rate does."""
    trials = made_up(ACCURACY)
    for n, trial in enumerate(trials):
        first, last = (
            Point(2, trial.values["outer.weight_decay"], 0.1, 1.0),
            Point(6, trial.values["outer.lr"], 0.1, 3.0),
        )
        trial.status, trial.curve = ("finished", [first, last]) if n % 3 == 0 else ("stopped", [first])
    shares = plots.importances(space, ACCURACY, trials)
    assert next(iter(shares)) == "outer.weight_decay"
    assert shares["outer.weight_decay"] > 0.6


@pytest.mark.parametrize(("score", "expected"), [(ACCURACY, [None, 0.2, 0.2, 0.7]), (MSE, [None, 0.2, 0.1, 0.1])])
def test_the_best_so_far_is_of_trials_that_came_to_their_end(score: Score, expected: list[float | None]) -> None:
    ends: list[tuple[Any, float]] = [("stopped", 0.9), ("finished", 0.2), ("finished", 0.1), ("finished", 0.7)]
    trials = [Trial(str(n), {}, status, curve=[Point(5, value, 0.1, 1.0)]) for n, (status, value) in enumerate(ends)]
    assert best_so_far(trials, score) == expected


def test_few_trials_say_nothing_of_importance(space: Space) -> None:
    assert plots.importances(space, ACCURACY, made_up(ACCURACY)[:3]) == {}


@pytest.mark.parametrize("score", [ACCURACY, MSE])
def test_the_plots_are_pictures(space: Space, score: Score, tmp_path: Path) -> None:
    drawn = plots.draw(tmp_path, space, score, made_up(score))
    pictures = [path for path in drawn if path.suffix == ".png"]
    assert {path.stem for path in pictures} == {"convergence", "parallel_coordinates", "importances"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


@pytest.mark.parametrize("score", [ACCURACY, MSE])
def test_trials_are_ranked_from_the_best_one_down(score: Score) -> None:
    """Of those that came to their end, and the table of all; those without a score come last."""
    trials = made_up(score)
    winner = best(trials, score)
    assert winner
    assert winner.name == "trial-0028"  # the 29th was stopped
    names = [trial.name for trial in report.ranked(trials, score)]
    assert (names[0], names[-2], names[-1]) == ("trial-0029", "trial-0000", "trial-0003")


def test_a_record_that_is_not_what_was_written_is_named(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for content in ("", "[]", '{"name": "trial-0000"}'):
        (tmp_path / "trial-0000.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"trial-0000.json: cannot be read .*; restore it, or remove it"):
            records.all()


@pytest.mark.parametrize("terminal", [True, False])
def test_while_it_runs_a_study_shows_its_trials_and_the_best_so_far(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=150)
    with report.live(Reporter(console), ACCURACY, 30) as follow:
        for trial in made_up(ACCURACY):
            follow(trial)
            follow(trial)  # as when its last score and its end are told
    text = out.getvalue()
    if terminal:
        assert "30 of 30 trials have begun, 30 are over; best so far trial-0028, 93.3 ± 10.0 %" in text
    else:
        lines = text.splitlines()
        assert len(lines) == 30
        assert lines[3].startswith("4/30 trial-0003 failed: it diverged (algorithm.name=maml outer.lr=0.1")
        assert lines[4].startswith(
            "5/30 trial-0004 stopped: 13.3 ± 10.0 % after 6 steps (algorithm.name=protonet outer.lr=0.133"
        )
        assert lines[4].endswith("best so far trial-0002, 6.7 ± 10.0 %")


@pytest.mark.parametrize(
    ("score", "difference", "half", "verdict"),
    [
        (ACCURACY, 0.03, 0.02, "+3.0 ± 2.0 % (better)"),
        (ACCURACY, -0.03, 0.02, "-3.0 ± 2.0 % (worse)"),
        (ACCURACY, 0.03, 0.03, "+3.0 ± 3.0 % (no clear difference)"),
        (MSE, -0.03, 0.02, "-0.03 ± 0.02 (better)"),
        (MSE, 0.03, 0.02, "+0.03 ± 0.02 (worse)"),
    ],
)
def test_a_study_says_what_its_best_is_worth(score: Score, difference: float, half: float, verdict: str) -> None:
    """Beside the settings of the file, and beside itself with other seeds."""
    trials = made_up(score)
    runs = [{score.name: 0.5, "ci95": 0.01}, {"difference": difference, "difference_ci95": half}]
    compared = {"meta_test": [{"title": "5-way 1-shot", "runs": runs}]}
    seed = Trial("winner-seed-1", {}, "finished", curve=[Point(6, 0.25, 0.1, 3.0)])
    for default, is_default in ((trials[2], False), (trials[1], True)):
        figures = report.result(Path("study"), "id", trials, trials[1], default, [seed], compared)
        out = io.StringIO()
        report.show(Reporter(Console(file=out, width=300)), score, trials, figures)
        text = out.getvalue()
        assert (verdict in text) != is_default
        assert ("no trial was better than the settings of the file" in text) == is_default
        assert f"with other seeds {score.show(0.25)}{score.unit}; of the settings of the file" in text


def test_settings_of_the_file_that_failed_do_not_keep_the_best_from_being_told() -> None:
    trials = made_up(ACCURACY)
    compared = {"meta_test": [{"title": "5-way 1-shot", "runs": [{"accuracy": 0.5, "ci95": 0.01}]}]}
    seed = Trial("winner-seed-1", {}, "finished", curve=[Point(6, 0.25, 0.1, 3.0)])
    figures = report.result(Path("study"), "id", trials, trials[1], trials[3], [seed], compared)
    out = io.StringIO()
    report.show(Reporter(Console(file=out, width=300)), ACCURACY, trials, figures)
    text = out.getvalue()
    assert "the run with the settings of the file failed: it diverged" in text
    assert "meta-test 5-way 1-shot accuracy of the best: 50.0 ± 1.0 %\n" in text
    assert "with other seeds 25.0 %\n" in text
