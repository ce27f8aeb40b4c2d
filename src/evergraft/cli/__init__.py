"""The command line: `evergraft ...`.

Each file holds the commands of one subject. A command imports what is heavy, such as torch, when it runs, so that
`evergraft --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from evergraft import __version__
from evergraft.cli import bench, corpus, finetuning, flops, pretraining, study
from evergraft.cli.output import leave, unreadable
from evergraft.cli.translation import Command
from evergraft.errors import EvergraftError

app = typer.Typer(
    name="evergraft",
    help="Pre-train BERT always-sparse: nine of ten weights never exist, the pattern of the others evolves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: what draws boxes takes longer to import than all the rest
)
for _command in (
    pretraining.pretrain,
    pretraining.evaluate,
    pretraining.fill,
    pretraining.export,
    finetuning.finetune,
    flops.flops,
    study.report,
):
    app.command(cls=Command)(_command)
app.add_typer(corpus.app, name="corpus")
app.add_typer(study.app, name="study")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line on `sys.argv`, and end the process.

    Exit codes: 0 is success; 1 a failed run of a study, or a bug; 2 bad input, with one sentence on standard error;
    128 + N means that signal N ended it, after the run was saved.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one for every load and save
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        code = app(standalone_mode=False)
    except EvergraftError as error:
        leave(str(error), 2)
    except OSError as error:
        leave(unreadable(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        leave("stopped", 130)
    except Exception as error:
        _leave_after(error)
    if code == 130:  # typer turns Ctrl-C into this code and prints nothing
        leave("stopped", code)
    sys.exit(code)


def _leave_after(error: Exception) -> None:
    """End the process after a usage error, which typer raises, or after a bug."""
    if hasattr(error, "format_message"):
        sentence = error.format_message()
        if sentence.startswith("Usage:"):  # no command was given, and the message is the help
            typer.echo(sentence, err=True)
            sys.exit(2)
        leave(sentence, 2)
    if os.environ.get("EVERGRAFT_TRACE"):
        raise error
    leave(f"{type(error).__name__}: {error} (a bug? EVERGRAFT_TRACE=1 shows where)", 1)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _evergraft(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
