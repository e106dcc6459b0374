"""Submitting a run to a Ray cluster as a job.

If the cluster asks for a token, set ``RAY_AUTH_MODE=token`` and give its token in ``RAY_AUTH_TOKEN``, in a
file that ``RAY_AUTH_TOKEN_PATH`` names, or in ``~/.ray/auth_token``; Ray sends it with every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distmeta.backends.private import LOGGERS
from distmeta.backends.upload import EXCLUDES, check_uploaded, strings
from distmeta.config.load import default_run_dir, load_config
from distmeta.errors import ClusterError, ConfigError, TokenError
from distmeta.tracking import mask

CONNECT_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.5
INTERRUPTED = 130  # what shells return after Ctrl-C
STORE = 'MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-sqlite:///$HOME/distmeta/mlflow.db}"'
START_SECONDS, NOT_YET = 60.0, "no available agent"
TOO_LARGE = ("status code 413", "exceeds the maximum size")


def train_command(config: str | Path, overrides: Sequence[str], working_dir: str | Path) -> str:
    """The shell command of a job that trains on the cluster it runs on.

    The job's own working directory is temporary. So the run directory and the MLflow store are in ``~/distmeta`` on
    the head node, unless the configuration (or, for the store, the cluster's environment) names others.

    Args:
        config: a YAML file inside `working_dir`.
        overrides: ``key=value``.
        working_dir: the directory to upload.

    Raises:
        ConfigError: the configuration is invalid or holds a password; or the configuration, or a file that it names by
            a relative path, does not exist or is not uploaded.
    """
    top = Path(working_dir).resolve()
    content = load_config(config, overrides)
    written = [item.partition("=")[::2] for item in overrides]
    settings = content.model_dump(mode="json", by_alias=True)
    for where, text in [*strings(settings), *written]:
        if mask(text) != text:
            found = "holds a user or a password in an address, which all who use the cluster could read"
            remedy = "give the address without it"
            if where.startswith("tracking"):
                remedy += ", and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the cluster is started"
            raise ConfigError(where, found, remedy)
    for remark in check_uploaded(config, settings, top):
        print(f"distmeta: {remark}", file=sys.stderr)
    name = Path(config).resolve().relative_to(top).as_posix()
    words = ["distmeta", "train", name, "cluster.address=auto", *overrides]
    command = f'mkdir -p "$HOME/distmeta" && {STORE} {shlex.join(words)}'
    if content.run_dir is None:
        command += f' run_dir="$HOME"/distmeta/{shlex.quote(default_run_dir(config).as_posix())}'
    return command


def submit(address: str, entrypoint: Sequence[str] | str, working_dir: str | Path, follow: bool = True) -> int:
    """Runs a command on a cluster, in a copy of a directory, and follows its log.

    It does not upload what .gitignore and .rayignore name, virtual environments, caches, local runs and files that
    commonly hold secrets, such as .env.

    Args:
        address: the cluster's dashboard, ``http://HEAD:8265``.
        entrypoint: a shell command, or its words.
        working_dir: the directory to upload.
        follow: copy the job's log to standard output until it ends; else return once it is submitted.

    Returns:
        0 if the job succeeded (or was submitted and is not followed), 1 if it failed or was stopped, and 130
        after Ctrl-C, which leaves the job running.

    Raises:
        ClusterError: the cluster does not answer or wants another token, or the directory is too large for Ray.
    """
    _check_address(address)
    with _user_errors(address):
        client = _client(address)
        words = entrypoint if isinstance(entrypoint, str) else shlex.join(entrypoint)
        job = _start(client, words, {"working_dir": str(working_dir), "excludes": EXCLUDES})
    print(f"submitted {job}; stop it with: ray job stop {job} --address {address}", file=sys.stderr)
    return _follow(client, job, address) if follow else 0


def _start(client: Any, entrypoint: str, runtime_env: dict[str, Any]) -> str:
    """The id of a new job. A cluster that has just started takes jobs only after some seconds: waits for it."""
    until, told = time.monotonic() + START_SECONDS, False
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))
        except RuntimeError as error:
            if NOT_YET not in str(error).lower() or time.monotonic() > until:
                raise
        if not told:
            print("waiting: the cluster takes no jobs yet", file=sys.stderr)
            told = True
        time.sleep(POLL_SECONDS)


def _check_address(address: str) -> None:
    """Checks that a Ray dashboard answers in time: Ray's own client waits without a limit."""
    if mask(address) != address:
        found = f"{mask(address)} holds a user, a password or a token, which commands and logs would show"
        raise ClusterError("--address", found, "give it without; Ray's token is read from RAY_AUTH_TOKEN")
    remedy = "give the address of the dashboard, such as http://HEAD:8265, and check that Ray runs there"
    if not address.startswith(("http://", "https://")):
        raise ClusterError("--address", f"{address!r} is not an http address", remedy)
    try:
        url = address.rstrip("/") + "/api/version"
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_SECONDS) as answer:
            known = "ray_version" in json.load(answer)
    except urllib.error.HTTPError as error:
        known = error.code in (401, 403)  # the client, which has the token, gets the reason
    except (OSError, ValueError, http.client.HTTPException) as error:
        found = f"{address} does not answer ({getattr(error, 'reason', error)})"
        raise ClusterError("--address", found, remedy) from None
    if not known:
        raise ClusterError("--address", f"{address} is not a Ray dashboard", remedy)


@contextlib.contextmanager
def _user_errors(address: str) -> Iterator[None]:
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise TokenError("--address", f"{address} wants a token, and yours is missing or wrong") from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in TOO_LARGE):
            remedy = "name large files in .rayignore, and keep data where the nodes can read it"
            raise ClusterError("working directory", "larger than Ray accepts (100 MiB zipped)", remedy) from error
        raise ClusterError("--address", str(error).strip().splitlines()[-1], "check the cluster") from error


def _client(address: str) -> Any:
    """A job client; an explicit address wins over Ray's environment variables."""
    from ray.job_submission import JobSubmissionClient

    for logger in LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
    variables = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        return JobSubmissionClient(address)
    finally:
        os.environ.update(hidden)


def _follow(client: Any, job: str, address: str) -> int:
    import aiohttp

    try:
        asyncio.run(_tail(client, job))
        while not (status := client.get_job_status(job)).is_terminal():
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        stop = f"ray job stop {job} --address {address}"
        print(f"\nno longer following; the job is still running. Stop it with: {stop}", file=sys.stderr)
        return INTERRUPTED
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        remedy = f"it may still be running; check: ray job status {job} --address {address}"
        raise ClusterError(f"job {job}", f"lost the connection to it ({error})", remedy) from error
    if status.value == "SUCCEEDED":
        return 0
    message = client.get_job_info(job).message.partition(", last available logs")[0]  # the logs were printed already
    print(f"job {job} {status.value.lower()}: {message}", file=sys.stderr)
    return 1


async def _tail(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)
