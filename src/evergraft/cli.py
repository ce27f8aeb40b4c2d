"""The command line. Everything heavy is imported inside the command that needs it, so that help comes at once."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

import typer

from evergraft import __version__
from evergraft.errors import EvergraftError
from evergraft.runs.recipe import SEEDS, Recipe, load_recipe, parse_block

app = typer.Typer(
    name="evergraft",
    help="Pre-train BERT always-sparse: nine of ten weights never exist, the pattern of the others evolves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
corpus_app = typer.Typer(help="Prepare text for training.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
study_app = typer.Typer(help="Run a grid of recipes, and see how far it is.", no_args_is_help=True)
app.add_typer(study_app, name="study")
bench_app = typer.Typer(help="Measure speed against dense and sparse rivals, in one process.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Densities = Annotated[
    list[float] | None,
    typer.Option("--density", help="Share of the blocks that exist; may be given again (default: 0.1)."),
]
Blocks = Annotated[
    list[str] | None, typer.Option("--block", help="Rows x columns; may be given again (default: 16x16).")
]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads (default: as many as torch takes).")]
Model = Annotated[str, typer.Option(help="tiny, mini, small, medium, base, large, or a config.json.")]
StepPrecision = Annotated[str, typer.Option(help="fp32 or bf16 (autocast) of the sparse step.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences a step.")]
SequenceLength = Annotated[int, typer.Option(min=8, help="Tokens a sequence has.")]
VocabularySize = Annotated[int, typer.Option(min=128, help="Word pieces of the MLM head.")]
Backend = Annotated[str, typer.Option(help="Of the sparse products: auto, dense, cpu or gpu.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
StepRivals = Annotated[str, typer.Option(help="all, or dense: our own in the same precision alone.")]
StepSeed = Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of weights, topologies and tokens.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the break-even chart to this HTML file (several densities).")]
Output = Annotated[Path | None, typer.Option(help="Append the JSON result to this file, or to one in this folder.")]


def main() -> None:
    """Run the command line; bad input leaves with one sentence on standard error and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' bars for every load and save
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        code = app(standalone_mode=False)
        _leave("stopped", code) if code == 130 else sys.exit(code)  # typer makes of Ctrl-C a code, and no word
    except EvergraftError as error:
        _leave(str(error), 2)
    except OSError as error:
        _leave(_sentence(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _leave("stopped", 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of typer's; one without words has shown the help
            _leave(error.format_message(), 2) if error.format_message() else sys.exit(2)
        if os.environ.get("EVERGRAFT_TRACE"):
            raise
        _leave(f"{type(error).__name__}: {error} (a bug? EVERGRAFT_TRACE=1 shows where)", 1)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _evergraft(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _with_recipe_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each field of Recipe; it gets those that were used, as a dict `fields`."""

    def run(**arguments: Any) -> None:
        fields = {name: arguments.pop(name) for name in Recipe.model_fields}
        command(**arguments, fields={name: value for name, value in fields.items() if value is not None})

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "fields"]
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_flag_type(field.annotation), typer.Option(help=_flag_help(name), show_default=False)],
        )
        for name, field in Recipe.model_fields.items()
    ]
    run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *flags]}
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


def _flag_type(annotation: Any) -> Any:
    """The type of a field as a flag: int, float, bool (a switch), text, or several texts."""
    if get_origin(annotation) is UnionType:
        (annotation,) = [choice for choice in get_args(annotation) if choice is not NoneType]
    if get_origin(annotation) is list:
        return list[str] | None
    return (annotation if annotation in (int, float, bool) else str) | None


def _flag_help(name: str) -> str:
    field = Recipe.model_fields[name]
    choices = get_args(field.annotation) if get_origin(field.annotation) not in (UnionType, list, tuple) else ()
    text = f"{field.description}" + (f": {', '.join(choices)}" if choices else "")
    if field.default is None:
        return text
    default = field.default
    if isinstance(default, tuple):
        default = "x".join(map(str, default))
    elif isinstance(default, list):
        default = " ".join(default)
    return f"{text} (default: {default})"


@app.command()
@_with_recipe_flags
def pretrain(
    recipe: Annotated[Path | None, typer.Option(help="YAML file of the fields below; flags override it.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The run's folder, new or empty (default: a new one in runs/).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="A run's folder, or one of its checkpoints, to go on with.")
    ] = None,
    as_json: Json = False,
    *,
    fields: dict[str, Any],
) -> None:
    """Pre-train a BERT whose encoder is sparse from the first step to the last."""
    if resume and (fields or recipe or output):
        given = [*fields, *(["recipe"] if recipe else []), *(["output"] if output else [])]
        raise EvergraftError(
            f"--resume goes on with the run's own recipe; drop --{', --'.join(given).replace('_', '-')}"
        )
    plan = None if resume else load_recipe(recipe, fields)
    from evergraft.training import pretrain as training
    from evergraft.training.summary import summarise

    try:
        result = training.resume(resume) if resume else training.pretrain(plan, output)  # type: ignore[arg-type]
    except training.Interrupted as stopped:
        _leave(str(stopped), 128 + stopped.signal_number)
    _report(result, as_json, lambda: summarise(result))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="Text to evaluate on, all of it, or a prepared corpus's validation split; may be given again "
            "(default: the run's own validation split)."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run's MLM and NSP loss and accuracy on any text."""
    from evergraft.training.evaluate import evaluate as measure

    result = measure(run, corpus, batch_size=batch_size, device=device)
    _report(result, as_json, lambda: _print_pairs(result))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    directory: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
    as_json: Json = False,
) -> None:
    """Write a run's model as a plain dense Hugging Face checkpoint, with tokenizer and model card."""
    from evergraft.training.export import export as write

    result = write(run, directory)
    _report(result, as_json, lambda: _print_pairs(result))


@app.command()
def finetune(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    task: Annotated[str, typer.Option(help="sst2, mrpc, rte, cola, stsb, or a table FILE.tsv with a header line.")],
    data: Annotated[Path | None, typer.Option(help="The folder with the task's train.tsv and dev.tsv.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="A table to validate FILE.tsv on (default: a tenth is held out).")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 32,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of classifier, order and dropout.")] = 0,
    densify: Annotated[bool, typer.Option("--densify", help="Make the encoder dense first.")] = False,
    updates: Annotated[int, typer.Option(min=0, help="Topology updates; 0 leaves the topology as it is.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    output: Annotated[
        Path | None, typer.Option(help="A new folder (default: finetune/TASK-sSEED in the run's folder).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a run's model on labelled sentences, sparse as it is or made dense first."""
    from evergraft.finetuning import finetune as tune

    result = tune(
        run,
        task,
        data=data,
        validation=validation,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        dense=densify,
        updates=updates,
        device=device,
        output=output,
    )
    _report(result, as_json, lambda: _print_pairs(result))


@corpus_app.command()
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Text files, globs, folders (.gz .xz .zst .jsonl .parquet too), data set names, "
            "builtin:docstrings, or - for standard input."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The corpus's folder; must not exist.")],
    vocabulary_size: Annotated[int, typer.Option(min=1, help="Word pieces to learn.")] = 8192,
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer.json or vocab.txt instead.")] = None,
    sequence_length: Annotated[int, typer.Option(min=8, help="Shortest input a document must fill.")] = 128,
    validation_fraction: Annotated[float, typer.Option(help="Share of the documents to validate on.")] = 0.05,
    as_json: Json = False,
) -> None:
    """Tokenise text once, into a folder that training maps into memory."""
    from evergraft.corpus import prepare as write

    corpus = write(
        sources,
        output,
        vocabulary_size=vocabulary_size,
        tokenizer=tokenizer,
        sequence_length=sequence_length,
        validation_fraction=validation_fraction,
    )
    result = corpus.summary()
    _report(result, as_json, lambda: _print_pairs(result))


@app.command()
def flops(
    model: Model = "base",
    density: Annotated[float, typer.Option(help="Share of the encoder's blocks that exist; 1 is dense.")] = 1.0,
    block: Annotated[
        str | None, typer.Option(help="Count exactly for these blocks (default: as if the asked density were got).")
    ] = None,
    sequence_length: Annotated[int, typer.Option(min=1, help="Tokens an input has.")] = 128,
    sequences: Annotated[int | None, typer.Option(min=1, help="Also count a run of this many sequences.")] = None,
    as_json: Json = False,
) -> None:
    """Count training FLOPs and bytes, sparse against dense."""
    from evergraft.bert.configuration import buildable_config
    from evergraft.bert.ledger import ledger

    config = buildable_config(model, 1, sequence_length)
    result = ledger(config, density, parse_block(block) if block else None, sequence_length).to_dict(sequences)
    _report(result, as_json, lambda: _print_pairs(result))


@bench_app.command("products")
def bench_products(
    tokens: Annotated[int, typer.Option(min=1, help="Rows of the layer's input.")] = 4096,
    in_features: Annotated[int, typer.Option("--in", min=1, help="Features of the layer's input.")] = 768,
    out_features: Annotated[int, typer.Option("--out", min=1, help="Features of the layer's output.")] = 3072,
    density: Densities = None,
    block: Blocks = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16, of all tensors.")] = "fp32",
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each figure is the fastest of so many.")] = 7,
    backend: Backend = "auto",
    device: Device = "cpu",
    rivals: Annotated[str, typer.Option(help="all, or dense alone, which is quicker.")] = "all",
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of topologies and tensors.")] = 0,
    plot: Plot = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time the three products of one sparse layer against nn.Linear, oneDNN, torch's CSR and BSR, and scipy."""
    _check_rivals(rivals)
    from evergraft.bench.products import ProductsBench
    from evergraft.bench.summary import print_products

    bench = ProductsBench(
        tokens=tokens,
        in_features=in_features,
        out_features=out_features,
        densities=_densities(density, plot),
        blocks=_blocks(block),
        precision=precision,
        threads=threads,
        rounds=rounds,
        backend=backend,
        device=device,
        sparse_rivals=rivals == "all",
        seed=seed,
    )
    _bench(bench.run, plot, output, as_json, print_products)


@bench_app.command("step")
def bench_step(
    model: Model = "base",
    density: Densities = None,
    block: Blocks = None,
    precision: StepPrecision = "fp32",
    batch_size: BatchSize = 32,
    sequence_length: SequenceLength = 128,
    vocabulary_size: VocabularySize = 30522,
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each figure is the fastest of so many.")] = 3,
    backend: Backend = "auto",
    device: Device = "cpu",
    rivals: StepRivals = "all",
    seed: StepSeed = 0,
    plot: Plot = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time a whole training step against the dense model's, and against stock transformers, in both precisions."""
    _check_rivals(rivals)
    from evergraft.bench.step import StepBench
    from evergraft.bench.summary import print_step

    bench = StepBench(
        model=model,
        densities=_densities(density, plot),
        blocks=_blocks(block),
        precision=precision,
        batch_size=batch_size,
        sequence_length=sequence_length,
        vocabulary_size=vocabulary_size,
        threads=threads,
        rounds=rounds,
        backend=backend,
        device=device,
        all_rivals=rivals == "all",
        seed=seed,
    )
    _bench(bench.run, plot, output, as_json, print_step)


@bench_app.command("profile")
def bench_profile(
    model: Model = "base",
    density: Annotated[float, typer.Option(help="Share of the blocks that exist in the sparse step.")] = 0.1,
    block: Annotated[str, typer.Option(help="Rows x columns.")] = "16x16",
    precision: StepPrecision = "fp32",
    batch_size: BatchSize = 32,
    sequence_length: SequenceLength = 128,
    vocabulary_size: VocabularySize = 30522,
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each part is the fastest of so many.")] = 3,
    backend: Backend = "auto",
    rivals: StepRivals = "all",
    seed: StepSeed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Show where the time of a training step goes on the CPU: stock, lean dense, sparse."""
    _check_rivals(rivals)
    from evergraft.bench.profile import profile_steps
    from evergraft.bench.step import StepBench
    from evergraft.bench.summary import print_profile

    bench = StepBench(
        model=model,
        densities=(density,),
        blocks=(parse_block(block),),
        precision=precision,
        batch_size=batch_size,
        sequence_length=sequence_length,
        vocabulary_size=vocabulary_size,
        threads=threads,
        rounds=rounds,
        backend=backend,
        all_rivals=rivals == "all",
        seed=seed,
    )
    _bench(lambda: profile_steps(bench), None, output, as_json, print_profile)


def _check_rivals(rivals: str) -> None:
    if rivals not in ("all", "dense"):
        raise EvergraftError(f"--rivals must be all or dense; got {rivals}")


BREAK_EVEN_DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0)  # of a chart, unless others are given


def _densities(given: list[float] | None, plot: Path | None) -> tuple[float, ...]:
    return tuple(given or (BREAK_EVEN_DENSITIES if plot else (0.1,)))


def _blocks(given: list[str] | None) -> tuple[tuple[int, int], ...]:
    return tuple(parse_block(block) for block in given or ["16x16"])


def _bench(
    measure: Callable[[], dict[str, Any]],
    plot: Path | None,
    output: Path | None,
    as_json: bool,
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Measure, then chart, record and report; what cannot be written is found out before measuring."""
    from evergraft.bench import chart, results
    from evergraft.kernels.allocator import keep_freed_memory
    from evergraft.runs.folder import environment

    keep_freed_memory()
    results.check_destination(plot, "--plot")
    results.check_destination(output, "--output", holds_results=True)
    machine = environment()
    result = measure() | {"machine": machine}
    if plot:
        chart.plot(result, plot)
    if output:
        results.append(output, result)
    _report(result, as_json, lambda: show(result))


@app.command()
def report(
    targets: Annotated[list[Path], typer.Argument(metavar="RUN... | STUDY", help="Run folders, or one study file.")],
    form: Annotated[
        str,
        typer.Option("--format", help="html, markdown (tables), csv (a line a run) or scores (csv, a line a score)."),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write (default: STUDY.html with the study's runs; else standard output)."),
    ] = None,
) -> None:
    """Turn a study, or any runs, into one self-contained page of charts and tables."""
    if form not in ("html", "markdown", "csv", "scores"):
        raise EvergraftError(f"--format must be html, markdown, csv or scores; got {form}")
    from evergraft.study.report import report as make

    text, path = make(targets, form, output)  # type: ignore[arg-type]
    typer.echo(text if path is None else f"The report is in {path}", nl=path is not None)


StudyFile = Annotated[Path, typer.Argument(help="A study's YAML file (docs/studies.md).")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time; threads and GPUs are shared out among them.")]


@study_app.command("run")
def study_run(study: StudyFile, jobs: Jobs = 1, as_json: Json = False) -> None:
    """Run what a study still lacks; stop it and run it again at any moment."""
    from evergraft.study.grid import load_study

    plan = load_study(study)
    from evergraft.study.execution import StudyInterrupted, run_study
    from evergraft.study.status import print_status, status_report

    try:
        statuses = run_study(plan, jobs)
    except StudyInterrupted as stopped:
        _leave(str(stopped), 128 + stopped.signal_number)
    _report(status_report(plan, statuses, jobs), as_json, lambda: print_status(plan, statuses, jobs))
    failed = sum(status.state == "failed" for status in statuses)
    if failed:
        _leave(f"{failed} of {len(statuses)} runs failed; run the study again to try them again", 1)


@study_app.command("status")
def study_status(study: StudyFile, jobs: Jobs = 1, as_json: Json = False) -> None:
    """Say which runs of a study are finished, running, failed or waiting, and how long the rest will take."""
    from evergraft.study import status
    from evergraft.study.grid import load_study

    plan = load_study(study)
    status.check_unchanged(plan)
    statuses = status.study_status(plan)
    _report(status.status_report(plan, statuses, jobs), as_json, lambda: status.print_status(plan, statuses, jobs))


def _report(result: dict[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        typer.echo(json.dumps(result))
    else:
        show()


def _print_pairs(result: dict[str, Any]) -> None:
    for name, value in result.items():
        typer.echo(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")


def _sentence(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    return f"cannot read or write{where}: {error.strerror or error}; nothing half-written was left behind"


def _leave(sentence: str, code: int) -> None:
    typer.echo(sentence if code >= 128 else f"error: {sentence}", err=True)
    sys.exit(code)
