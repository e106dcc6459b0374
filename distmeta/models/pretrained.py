"""Finds pretrained encoders and reads them without log output. Each error is one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distmeta.errors import ConfigError, ModelError, UserError

DOWNLOADED = (
    "config.json",
    "model*.safetensors*",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
)


def locate(path: str | None) -> Path:
    """The folder of `path`, which is a folder, hub:owner/name or package:name/folder.

    Raises:
        ConfigError: `path` is None.
        ModelError: there is no model, or the hub does not answer.
    """
    valid = "give a folder, hub:owner/name or package:name/folder"
    if path is None:
        raise ConfigError("model.path", "missing", valid)
    where = f"model.path {path}"
    kind, _, rest = path.partition(":")
    if kind == "hub":
        return _download(rest, where)
    if kind == "package":
        name, _, inside = rest.partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None  # finds without importing
        if spec is None or not spec.submodule_search_locations:
            remedy = "pip install distmeta[examples], or the package that holds the model"
            raise ModelError(where, f"package {name!r} is not installed", remedy)
        folder = Path(spec.submodule_search_locations[0]) / inside
    else:
        folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelError(where, f"{'no config.json in' if folder.is_dir() else 'no folder'} {folder}", valid)
    return folder


def _download(name: str, where: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED)))
    except (OSError, ValueError) as error:
        remedy = "check the name and the connection, or give a folder"
        raise ModelError(where, str(error).splitlines()[0], remedy) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars and log messages."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns an error of transformers into a `ModelError` of one line."""
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:  # tokenizers raises nothing more specific
        found = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(" .:")
        raise ModelError(where, found, "give a text encoder with config.json, tokenizer and safetensors") from error
