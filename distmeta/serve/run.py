"""Runs the service until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distmeta.config.cluster import Workers
from distmeta.errors import ConfigError
from distmeta.serve.access import NAMES, find_token, listen
from distmeta.serve.limits import Limits

Note = Callable[[str], None]
POLL_SECONDS = 0.1
GRACE_SECONDS = 4  # for requests under way to end


@dataclass(frozen=True)
class Settings:
    """What is served, and where."""

    learner: Path  # a run's directory or a learner's folder
    tasks: Path | None = None  # None: beside the learner
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    replicas: Workers = field(default_factory=lambda: Workers(min=1, max=1))
    limits: Limits = field(default_factory=Limits)


def serve(settings: Settings, stopped: Callable[[], bool], note: Note) -> None:
    """Serves a learner until `stopped`. All that a user may have got wrong is found before Ray starts.

    Raises:
        UserError: the learner, the folder of tasks, the address or the token cannot be used.
    """
    _require_serve()
    from distmeta.serve.store import Store
    from distmeta.use.learner import FOLDER, load

    learner = load(settings.learner)
    home = settings.learner / FOLDER if (settings.learner / FOLDER).is_dir() else settings.learner
    home = home.absolute()
    store = Store((settings.tasks or home.with_name(f"{home.name}-tasks")).absolute())
    token = find_token(settings.host, settings.token_file, note)
    sha256 = learner.about["meta_params_sha256"]
    with listen(settings.host, settings.port) as socket, store.opened(sha256):
        from distmeta.serve.app import build_app
        from distmeta.serve.replicas import replicas

        note("starting replicas")
        with replicas(str(home), str(store.folder), settings.limits, settings.replicas, stopped) as found:
            hosts = None if token else {*NAMES, settings.host}
            app = build_app(found, store, learner.codecs, settings.limits, token, hosts)
            host, port = socket.getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            asyncio.run(_run(app, socket, stopped, lambda: note(f"serving at {address}, tasks in {store.folder}")))


async def _run(app: Any, socket: Any, stopped: Callable[[], bool], ready: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Signals are the command line's."""
            yield

    server = Server(
        uvicorn.Config(
            app,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # else a client could name any address as its own
            server_header=False,
            timeout_keep_alive=75,  # as proxies have it; a client that sends later than this must connect again
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[socket]))
    told = False
    while not serving.done():
        if server.started and not told:
            ready()
            told = True
        server.should_exit = stopped()
        await asyncio.wait([serving], timeout=POLL_SECONDS)
    await serving


def _require_serve() -> None:
    try:
        import ray.serve
        import uvicorn  # noqa: F401
    except ImportError as error:
        import ray

        found = f"Ray Serve is not complete here ({error.name} is missing)"
        raise ConfigError("distmeta serve", found, f'`pip install "ray[serve]=={ray.__version__}"`') from error
