"""The command line of the fault run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from tests.faults.outcome import Options
from tests.faults.report import as_json, as_markdown, in_short
from tests.faults.run import Run, scratch


def main(
    turns: Annotated[int, typer.Option(help="How many turns are offered.", min=1)] = 20_000,
    sessions: Annotated[int, typer.Option(help="Over how many sessions.", min=1)] = 500,
    seed: Annotated[int, typer.Option(help="Of the load and of the schedule of faults.")] = 1,
    minutes: Annotated[float, typer.Option(help="How long the load lasts.", min=0.05)] = 7.0,
    hits: Annotated[int, typer.Option(help="How often each crash point is to be hit.", min=0)] = 22,
    outages: Annotated[int, typer.Option(help="How often Valkey is away for ten seconds.", min=0)] = 2,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=2)] = 4,
    concurrency: Annotated[int, typer.Option(help="Threads of each.", min=1)] = 12,
    short: Annotated[bool, typer.Option(help="Short leases and waits, for a trial.")] = False,
    plant: Annotated[str, typer.Option(help="Break inturn: `forget` or `blind`; the run must find it.")] = "",
    only: Annotated[
        str, typer.Option(help="Only these faults, by the names of the report, with commas between them.")
    ] = "",
    report: Annotated[
        Path | None, typer.Option(help="Write the report to this path with .md and .json.")
    ] = None,
) -> None:
    """Run a load of turns through everything that may go wrong, and count what came of it.

    Ends by itself, with 1 if there is any violation. Example:

    python -m tests.faults --turns 2000 --sessions 60 --minutes 1.5 --hits 3 --seed 7
    """
    options = Options(
        turns=turns,
        sessions=sessions,
        seed=seed,
        minutes=minutes,
        hits=hits,
        outages=outages,
        workers=workers,
        concurrency=concurrency,
        short=short,
        plant=plant,
        only=only,
    )
    command = f'make faults ARGS="{shlex.join(sys.argv[1:])}"'
    with scratch() as directory:
        outcome = Run(options, directory, lambda line: print(line, flush=True)).run()
    text = as_markdown(outcome, command)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.with_suffix(".md").write_text(text)
        report.with_suffix(".json").write_text(as_json(outcome, command))
    print(text if report is None else in_short(outcome))
    raise typer.Exit(0 if outcome.ok else 1)


if __name__ == "__main__":
    typer.run(main)
