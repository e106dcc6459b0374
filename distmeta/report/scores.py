"""The files of an evaluation: which rows each episode is made of, and the meta-trained learner's score on it.

RUN/manifest-5way-1shot.json   one a shape of episodes
    scores-5way-1shot.json     likewise; `format` numbers what it holds, `meta_params_sha256` says whose scores they are
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.errors import CheckpointError
from distmeta.types import Score

FORMAT = 1
Shape = tuple[str, str]  # its title, such as 5-way 1-shot, and the hash of the manifest


def write(run_dir: Path, meta_params_sha256: str, evaluated: Sequence[tuple[Any, dict[str, Any]]]) -> None:
    """Writes manifest and scores of each shape, and removes those of an earlier evaluation.

    Args:
        run_dir: the run.
        meta_params_sha256: of θ.
        evaluated: of each shape the manifest, and `family`, `shape`, `title`, `score`, `manifest_sha256` and `scores`.
    """
    # All of them first: a process that is killed must not leave scores of two θ side by side.
    for path in files(run_dir):
        path.unlink()
    for manifest, scores in evaluated:
        content = {"format": FORMAT, "meta_params_sha256": meta_params_sha256, **scores}
        for kind, written in (("manifest", manifest), ("scores", content)):
            path = run_dir / f"{kind}-{slug(scores['title'])}.json"
            path.write_text(json.dumps(written, sort_keys=True, separators=(",", ":")), encoding="utf-8")


def slug(title: str) -> str:
    """A title in names of files: 5way-1shot."""
    return title.replace("-", "").replace(" ", "-")


def files(run_dir: Path) -> list[Path]:
    """All manifests and scores of a run."""
    return [path for kind in ("manifest", "scores") for path in sorted(run_dir.glob(f"{kind}-*.json"))]


def read(name: str, run_dir: Path) -> dict[Shape, dict[str, Any]]:
    """What the files of a run's scores hold, by shape.

    Raises:
        CheckpointError: there are none, they cannot be read, or they are of different meta-parameters.
    """
    again, found = f"run `distmeta evaluate {name}`", dict[Shape, dict[str, Any]]()
    owners = dict[str, str]()
    for path in sorted(run_dir.glob("scores-*.json")):
        try:
            its = json.loads(path.read_text(encoding="utf-8"))
            if its.get("format") != FORMAT:
                raise CheckpointError(name, f"{path.name} is of format {its.get('format', 0)}, not {FORMAT}", again)
            _ = its["family"], Score(**its["score"]), np.array(its["scores"], float)
            found[its["title"], its["manifest_sha256"]] = its
            owners[its["meta_params_sha256"]] = path.name
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(name, f"its scores cannot be read ({error})", again) from error
    if not found:
        raise CheckpointError(name, "has no scores of meta-test", again)
    if len(owners) > 1:
        raise CheckpointError(name, f"{' and '.join(owners.values())} are of different meta-parameters", again)
    return dict(sorted(found.items(), key=lambda item: list(item[1]["shape"].values())))
