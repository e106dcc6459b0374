"""Ctrl-C and SIGTERM, sent to a real process: it says so within 10 s, keeps what it has, and can go on."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from toy import start_training, toy_config, toy_settings, wait_for

from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.stop import Stopped, stopper

SECONDS = 10  # in which the step must have ended, one way or the other, and be kept


STEPS: dict[str, Any] = {"outer__steps": 4000, "checkpoint__every": 0}


def stop_and_resume(folder: Path, number: signal.Signals, **overrides: Any) -> None:
    (folder / "toy.yaml").write_text(yaml.safe_dump(toy_settings(folder, **STEPS, **overrides)))
    process = start_training(folder, "toy.yaml", "run_dir=run")
    wait_for(folder / "run" / "checkpoints" / "step-00000000", process)
    time.sleep(1)  # some steps
    asked = time.time()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "go on with `distmeta train --resume run`" in said
    newest = max((folder / "run" / "checkpoints").iterdir())
    assert asked <= newest.stat().st_mtime < asked + SECONDS
    steps = int(newest.name.removeprefix("step-"))
    assert 0 < steps < 4000
    resumed = driver.resume(folder / "run", [f"outer.steps={steps + 5}"], Reporter())
    config = toy_config(folder, **{**STEPS, **overrides, "cluster__backend": "inprocess", "outer__steps": steps + 5})
    straight = driver.train(config, folder / "straight", Reporter())
    assert resumed["meta_params_sha256"] == straight["meta_params_sha256"]


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.nightly) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_run_that_is_asked_to_stop_keeps_its_last_step(tmp_path: Path, number: signal.Signals) -> None:
    stop_and_resume(tmp_path, number)


@pytest.mark.nightly
def test_a_run_on_ray_that_is_asked_to_stop_keeps_its_last_step(tmp_path: Path) -> None:
    stop_and_resume(tmp_path, signal.SIGTERM, cluster__backend="ray")


@pytest.mark.nightly
@pytest.mark.parametrize("everything", [False, True], ids=["Ctrl-Z", "a laptop that sleeps"])
def test_a_run_that_was_suspended_goes_on(tmp_path: Path, everything: bool) -> None:
    """For longer than any deadline, with or without Ray's own processes; then it comes to what it would have."""
    overrides: dict[str, Any] = {"outer__steps": 600, "checkpoint__every": 100}
    content = toy_settings(tmp_path, cluster__backend="ray", **overrides)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content))
    process = start_training(tmp_path, "toy.yaml", "run_dir=run")
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000100", process)
    asleep = [psutil.Process(process.pid)]
    asleep += asleep[0].children(recursive=True) if everything else []
    for one in asleep:
        one.suspend()
    time.sleep(60)
    for one in reversed(asleep):
        one.resume()
    out, said = process.communicate(timeout=200)
    assert out, said
    straight = driver.train(toy_config(tmp_path, **overrides), tmp_path / "straight", Reporter())
    assert json.loads(out)["meta_params_sha256"] == straight["meta_params_sha256"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_waits_for_a_good_moment_and_the_second_does_not(number: signal.Signals, code: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    with stopper() as asked:
        asked.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as caught:
            asked.check()
        assert caught.value.code == code
        with pytest.raises(Stopped):
            os.kill(os.getpid(), number)
    assert signal.signal(number, before) is signal.SIG_DFL


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopper() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            asked.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_step_that_takes_too_long_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distmeta.runs.stop.GRACE_SECONDS", 0.1)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with stopper(), pytest.raises(Stopped) as caught:
        time.sleep(30)
    assert caught.value.code == 130


def test_what_ray_makes_of_it_still_says_which_signal_it_was() -> None:
    def wait() -> None:
        with stopper():
            os.kill(os.getpid(), signal.SIGTERM)
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as caught:
        wait()
    assert caught.value.code == 143
