"""The files of an evaluation: the data rows of each episode, and the meta-trained learner's score on it.

RUN/manifest-5way-1shot.json   one for each shape of episodes
    scores-5way-1shot.json     likewise, with the format number and the hash of the evaluated meta-parameters
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
Shape = tuple[str, str]  # title, such as 5-way 1-shot, and hash of the manifest


def write(run_dir: Path, meta_params_sha256: str, evaluated: Sequence[tuple[Any, dict[str, Any]]]) -> None:
    """Writes manifest and scores of each shape, and removes those of an earlier evaluation.

    Args:
        run_dir: the run.
        meta_params_sha256: hash of θ.
        evaluated: for each shape the manifest, and `family`, `shape`, `title`, `score`, `manifest_sha256` and `scores`.
    """
    # Remove all of them first: a killed process must not leave scores of two different θ.
    for path in files(run_dir):
        path.unlink()
    for manifest, scores in evaluated:
        content = {"format": FORMAT, "meta_params_sha256": meta_params_sha256, **scores}
        for kind, written in (("manifest", manifest), ("scores", content)):
            path = run_dir / f"{kind}-{slug(scores['title'])}.json"
            path.write_text(json.dumps(written, sort_keys=True, separators=(",", ":")), encoding="utf-8")


def slug(title: str) -> str:
    """A title as part of a file name, such as 5way-1shot."""
    return title.replace("-", "").replace(" ", "-")


def files(run_dir: Path) -> list[Path]:
    """All manifests and scores of a run."""
    return [path for kind in ("manifest", "scores") for path in sorted(run_dir.glob(f"{kind}-*.json"))]


def read(name: str, run_dir: Path) -> dict[Shape, dict[str, Any]]:
    """The content of a run's score files, by shape.

    Raises:
        CheckpointError: there are none, they cannot be read, or they belong to different meta-parameters.
    """
    retry, found = f"run `distmeta evaluate {name}`", dict[Shape, dict[str, Any]]()
    owners = dict[str, str]()
    for path in sorted(run_dir.glob("scores-*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("format") != FORMAT:
                raise CheckpointError(name, f"{path.name} is of format {content.get('format', 0)}, not {FORMAT}", retry)
            _ = content["family"], Score(**content["score"]), np.array(content["scores"], float)
            found[content["title"], content["manifest_sha256"]] = content
            owners[content["meta_params_sha256"]] = path.name
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(name, f"its scores cannot be read ({error})", retry) from error
    if not found:
        raise CheckpointError(name, "has no scores of meta-test", retry)
    if len(owners) > 1:
        raise CheckpointError(name, f"{' and '.join(owners.values())} are of different meta-parameters", retry)
    return dict(sorted(found.items(), key=lambda item: list(item[1]["shape"].values())))
