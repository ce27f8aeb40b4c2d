"""`evergraft pretrain`, `evaluate`, `fill` and `export`: a run, and what is done with its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evergraft.cli.flags import Device, Json, RunFolder, with_recipe_flags
from evergraft.cli.output import leave, print_result
from evergraft.errors import EvergraftError
from evergraft.runs.layout import REPORT
from evergraft.runs.recipe import load_recipe


@with_recipe_flags
def pretrain(
    recipe: Annotated[Path | None, typer.Option(help="YAML file of the fields below; flags override it.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The run's folder, new or empty (default: a new one in runs/).")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A run's folder, or one of its checkpoints, to resume.")] = None,
    page: Annotated[
        bool, typer.Option("--report", help="Write a report of charts and tables to the run's folder at the end.")
    ] = False,
    as_json: Json = False,
    *,
    fields: dict[str, Any],
) -> None:
    """Pre-train a BERT with a sparse encoder.

    The encoder is sparse from the first step to the last, and its topology is updated on the way.
    """
    if resume:
        _refuse_beside_resume([*fields, *(["recipe"] if recipe else []), *(["output"] if output else [])])
    chosen = None if resume else load_recipe(recipe, fields)
    from evergraft.training import pretrain as training
    from evergraft.training.summary import summarise

    try:
        result = training.resume(resume) if resume else training.pretrain(chosen, output)  # type: ignore[arg-type]
    except training.Interrupted as stopped:
        leave(str(stopped), 128 + stopped.signal_number)
    path = _report(Path(result.run)) if page else None
    print_result(result.to_dict(), as_json, lambda: summarise(result, path))


def _report(run: Path) -> Path | None:
    from evergraft.study.report import report

    return report([run], output=run / REPORT)[1]


def _refuse_beside_resume(given: list[str]) -> None:
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise EvergraftError(f"--resume goes on with the run's own recipe; drop {flags}")


def evaluate(
    run: RunFolder,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="Text to evaluate on, all of it, or a prepared corpus, of which the validation split is taken; may "
            "be given again (default: the run's own validation split)."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 32,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run's losses on any text.

    These are the MLM and the NSP loss, in nats, and the accuracies.
    """
    from evergraft.training.evaluate import evaluate as measure

    print_result(measure(run, corpus, batch_size=batch_size, device=device).to_dict(), as_json)


def fill(
    run: RunFolder,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...", help="Texts with [MASK] in them (default: some of the run's own validation split)."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Inputs of the validation split that are shown.")] = 6,
    as_json: Json = False,
) -> None:
    """Let a run's model fill in masked words.

    Without texts these are words of its validation split, which it was not trained on.
    """
    from rich.console import Console

    from evergraft.training.fill import fill as guess
    from evergraft.training.summary import filled_table

    filled = guess(run, texts or None, count=count)
    print_result({"texts": [one.to_dict() for one in filled]}, as_json, lambda: Console().print(filled_table(filled)))


def export(
    run: RunFolder,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where to write; must not exist.")],
    as_json: Json = False,
) -> None:
    """Write a run's model for plain transformers.

    The checkpoint is dense, and comes with tokenizer and model card.
    """
    from evergraft.training.export import export as write

    print_result(write(run, directory).to_dict(), as_json)
