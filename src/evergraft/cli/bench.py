"""`evergraft bench`: speed, measured against dense and sparse rivals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from evergraft.cli.flags import Json, Model, check_choice, described
from evergraft.cli.output import print_result
from evergraft.cli.translation import Command
from evergraft.errors import EvergraftError
from evergraft.settings import SEEDS, parse_block

app = typer.Typer(help="Time products and steps against rivals.", no_args_is_help=True)

BREAK_EVEN_DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0)  # those of a chart, unless others are given
RIVALS = ("all", "dense")

Densities = Annotated[
    list[float] | None,
    typer.Option("--density", help="Share of the blocks that exist; may be given again (default: 0.1)."),
]
Blocks = Annotated[
    list[str] | None, typer.Option("--block", help="Rows x columns; may be given again (default: 16x16).")
]
StepPrecision = Annotated[str, typer.Option(help="Precision of the sparse step: fp32, or bf16 by autocast.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences in a step.")]
SequenceLength = Annotated[int, typer.Option(min=8, help="Tokens a sequence has.")]
VocabularySize = Annotated[int, typer.Option(min=128, help="Word pieces of the MLM head.")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads (default: as many as torch takes).")]
Rounds = Annotated[int, typer.Option(min=1, help="Each figure is the fastest of so many rounds.")]
Backend = Annotated[str, typer.Option(help=f"{described('backend')}.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
ProductRivals = Annotated[str, typer.Option(help="all, or dense alone, which is quicker.")]
StepRivals = Annotated[str, typer.Option(help="all, or dense: only evergraft's own dense step, in the same precision.")]
Seed = Annotated[
    int, typer.Option(min=0, max=SEEDS - 1, help="Seed of all that is drawn at random: topologies, weights, inputs.")
]
Plot = Annotated[
    Path | None, typer.Option(help="An HTML file to draw the break-even chart to, over several densities.")
]
Output = Annotated[
    Path | None, typer.Option(help="A file of results to append the JSON result to, or a folder for one.")
]


@app.command("products", cls=Command)
def bench_products(
    tokens: Annotated[int, typer.Option(min=1, help="Rows of the layer's input.")] = 4096,
    in_features: Annotated[int, typer.Option("--in", min=1, help="Features of the layer's input.")] = 768,
    out_features: Annotated[int, typer.Option("--out", min=1, help="Features of the layer's output.")] = 3072,
    density: Densities = None,
    block: Blocks = None,
    precision: Annotated[str, typer.Option(help="Precision of all tensors: fp32 or bf16.")] = "fp32",
    threads: Threads = None,
    rounds: Rounds = 7,
    backend: Backend = "auto",
    device: Device = "cpu",
    rivals: ProductRivals = "all",
    seed: Seed = 0,
    plot: Plot = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time the three products of one sparse layer.

    Rivals are nn.Linear, oneDNN, torch's CSR and BSR, and scipy.
    """
    check_choice("--rivals", rivals, RIVALS)
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
    _run(bench.run, plot, output, as_json, print_products)


@app.command("step", cls=Command)
def bench_step(
    model: Model = "base",
    density: Densities = None,
    block: Blocks = None,
    precision: StepPrecision = "fp32",
    batch_size: BatchSize = 32,
    sequence_length: SequenceLength = 128,
    vocabulary_size: VocabularySize = 30522,
    threads: Threads = None,
    rounds: Rounds = 3,
    backend: Backend = "auto",
    device: Device = "cpu",
    rivals: StepRivals = "all",
    seed: Seed = 0,
    plot: Plot = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time a whole training step of a sparse BERT.

    Rivals are the dense model and stock transformers, in both precisions.
    """
    check_choice("--rivals", rivals, RIVALS)
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
    _run(bench.run, plot, output, as_json, print_step)


@app.command("profile", cls=Command)
def bench_profile(
    model: Model = "base",
    density: Annotated[float, typer.Option(help="Share of the blocks that exist in the sparse step.")] = 0.1,
    block: Annotated[str, typer.Option(help="Rows x columns.")] = "16x16",
    precision: StepPrecision = "fp32",
    batch_size: BatchSize = 32,
    sequence_length: SequenceLength = 128,
    vocabulary_size: VocabularySize = 30522,
    threads: Threads = None,
    rounds: Rounds = 3,
    backend: Backend = "auto",
    rivals: StepRivals = "all",
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Show where the time of a training step goes.

    It takes the step of stock transformers, of the lean dense model and of the sparse one apart, on the CPU.
    """
    check_choice("--rivals", rivals, RIVALS)
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
    _run(lambda: profile_steps(bench), None, output, as_json, print_profile)


def _check_folder(flag: str, path: Path | None) -> None:
    if path and not path.parent.is_dir():
        raise EvergraftError(f"{flag} {path}: the folder {path.parent} does not exist; make it first")


def _densities(given: list[float] | None, plot: Path | None) -> tuple[float, ...]:
    return tuple(given or (BREAK_EVEN_DENSITIES if plot else (0.1,)))


def _blocks(given: list[str] | None) -> tuple[tuple[int, int], ...]:
    return tuple(parse_block(block) for block in given or ["16x16"])


def _run(
    measure: Callable[[], dict[str, Any]],
    plot: Path | None,
    output: Path | None,
    as_json: bool,
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Measure, then chart, record and print; a destination that cannot be written to is found before measuring."""
    from evergraft.bench import chart, records
    from evergraft.kernels.allocator import keep_freed_memory
    from evergraft.runs.environment import Environment

    keep_freed_memory()
    _check_folder("--plot", plot)
    _check_folder("--output", output)
    if plot and plot.is_dir():
        raise EvergraftError(f"--plot {plot} is a folder; name the file to write")
    if output and output.is_file():
        records.read(output)
    machine = Environment.here().to_dict()
    result = measure() | {"machine": machine}
    if plot:
        chart.plot(result, plot)
    if output:
        records.append(output, result)
    print_result(result, as_json, lambda: show(result))
