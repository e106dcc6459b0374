"""The command that serves a learner over HTTP."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from distmeta.cli.shared import Run, app
from distmeta.errors import ConfigError, printable
from distmeta.report.output import clean_stdout
from distmeta.serve.limits import MIB, Limits

USUAL = Limits()
STOPPED = 128 + signal.SIGTERM


@app.command()
def serve(
    run: Run,
    host: Annotated[str, typer.Option(help="Where to listen; another host than this machine needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where tasks are kept; by default beside the learner.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the token that requests need; made if missing."),
    ] = None,
    replicas: Annotated[
        str, typer.Option(metavar="MIN..MAX", help="Processes that compute, as many as the load needs; or a number.")
    ] = "1..2",
    max_body: Annotated[int, typer.Option(min=1, help="MiB of a request.")] = USUAL.body_bytes // MIB,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a prediction.")] = USUAL.texts,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = USUAL.characters,
    max_classes: Annotated[int, typer.Option(min=1, help="Classes of a task.")] = USUAL.classes,
    max_examples: Annotated[int, typer.Option(min=1, help="Examples of a task.")] = USUAL.examples,
    max_tasks: Annotated[int, typer.Option(min=1, help="Tasks on disk.")] = USUAL.tasks,
    memory: Annotated[int, typer.Option(min=1, help="MiB of tasks in memory, for each replica.")] = (
        USUAL.memory_bytes // MIB
    ),
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second from one address.")] = USUAL.rate,
    pending: Annotated[int, typer.Option(min=1, help="Requests at once.")] = USUAL.pending,
    adaptations: Annotated[int, typer.Option(min=1, help="Tasks that are learned at once.")] = USUAL.adaptations,
) -> None:
    """Serve a learner over HTTP: tasks are learned from examples and asked. Answers at / and /docs.

    Requests need the token in --token-file or in DISTMETA_SERVE_TOKEN, if there is one.
    """
    from distmeta.config.cluster import Workers

    found = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", replicas)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise ConfigError("--replicas", replicas, "give a number such as 2, or a range such as 1..4")

    from distmeta.runs.directory import place

    learner = place(run)
    if (learner / "task.json").is_file():
        raise ConfigError(run, "is a task, and a learner is served", f"give the task's own: {learner / 'learner'}")

    from distmeta.runs.stop import stopper
    from distmeta.serve.run import Settings
    from distmeta.serve.run import serve as start

    limits = Limits(
        body_bytes=max_body * MIB,
        texts=max_texts,
        characters=max_characters,
        classes=max_classes,
        examples=max_examples,
        tasks=max_tasks,
        memory_bytes=memory * MIB,
        rate=rate,
        pending=pending,
        adaptations=adaptations,
    )
    chosen = Settings(learner, tasks, host, port, token_file, Workers(min=fewest, max=most), limits)
    try:
        with clean_stdout(), stopper() as asked:

            def stopped() -> bool:
                asked.listen()
                return asked.number is not None

            start(chosen, stopped, _note)
            asked.check()
    except (KeyboardInterrupt, SystemExit) as error:
        print("distmeta: stopped; the tasks are kept", file=sys.stderr)
        code = getattr(error, "code", 130)
        # While Ray starts, it handles SIGTERM itself and exits with the signal's number.
        raise typer.Exit(STOPPED if code == signal.SIGTERM else code) from None


def _note(remark: str) -> None:
    print(f"distmeta: {printable(remark)}", file=sys.stderr)
