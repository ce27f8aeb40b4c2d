"""`evergraft study` and `evergraft report`: many runs as one, and the page that shows what they came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evergraft.cli.flags import Json, check_choice
from evergraft.cli.output import leave, print_result
from evergraft.cli.translation import Command

app = typer.Typer(help="Run a grid of recipes, and see how far it is.", no_args_is_help=True)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study's YAML file (docs/studies.md).")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time; threads and GPUs are shared out among them.")]


@app.command("run", cls=Command)
def study_run(study: StudyFile, jobs: Jobs = 1, as_json: Json = False) -> None:
    """Run what a study still lacks.

    It can be stopped and run again at any moment.
    """
    from evergraft.study.grid import load_study

    plan = load_study(study)
    from evergraft.study.execution import StudyInterrupted, run_study
    from evergraft.study.status import print_status, status_report

    try:
        statuses = run_study(plan, jobs)
    except StudyInterrupted as stopped:
        leave(str(stopped), 128 + stopped.signal_number)
    print_result(status_report(plan, statuses, jobs), as_json, lambda: print_status(plan, statuses, jobs))
    failed = sum(status.state == "failed" for status in statuses)
    if failed:
        leave(f"{failed} of {len(statuses)} runs failed; run the study again to try them again", 1)


@app.command("status", cls=Command)
def study_status(study: StudyFile, jobs: Jobs = 1, as_json: Json = False) -> None:
    """Say how far a study is.

    Every run is finished, running, failed or waiting; the time that the rest will take is estimated.
    """
    from evergraft.study import status
    from evergraft.study.grid import load_study

    plan = load_study(study)
    status.check_unchanged(plan)
    statuses = status.study_status(plan)
    print_result(status.status_report(plan, statuses, jobs), as_json, lambda: status.print_status(plan, statuses, jobs))


def report(
    targets: Annotated[list[Path], typer.Argument(metavar="RUN... | STUDY", help="Run folders, or one study file.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="html, markdown (tables), csv (one line for each run) or scores (csv, one for each score)."
        ),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write (default: STUDY.html with the study's runs; else standard output)."),
    ] = None,
    steps: Annotated[
        Path | None,
        typer.Option(help="Results of `evergraft bench step`: times at equal loss are also given by the steps in it."),
    ] = None,
) -> None:
    """Turn a study, or any runs, into a report.

    An HTML report is one self-contained page of charts and tables.
    """
    check_choice("--format", form, ("html", "markdown", "csv", "scores"))
    from evergraft.study.report import report as make

    text, path = make(targets, form, output, steps)  # type: ignore[arg-type]
    typer.echo(text if path is None else f"The report is in {path}", nl=path is not None)
