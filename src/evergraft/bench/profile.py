"""`evergraft bench profile`: where the time of a training step goes, in stock, lean dense and sparse models."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from evergraft.bench.step import CLIPPING, WARM_UP, Step, StepBench
from evergraft.bert.config import bert_config
from evergraft.errors import EvergraftError

# An operator belongs to the first part whose pattern matches its name, or the name of an operator that called it.
PARTS = {
    "AdamW": r"Optimizer\.(step|zero_grad)",
    "clipping": CLIPPING,
    "MLM head": r"_VocabularyLoss|cross_entropy|nll_loss|NllLoss|log_softmax|LogSoftmax",
    "sparse products": r"evergraft|_SparseLinear|_JointLinear|_SparseFeedForward",
    "dropout": r"[Dd]ropout(?!.*scaled_dot)|bernoulli",
    "attention": r"_Attention|scaled_dot_product|ScaledDotProduct|bmm|Bmm|softmax|Softmax",
    "GELU": r"[Gg]elu",
    "layer norm": r"layer_norm|LayerNorm|ResidualNorm",
    "embeddings": r"[Ee]mbedding",
    "dense products": r"aten::(addmm|mm|linear)\b|AddmmBackward|MmBackward|mkldnn|_Linear",
}
OTHER = "the rest: sums, casts, copies"


def profile_steps(bench: StepBench) -> dict[str, Any]:
    """Profile every step of a benchmark on the CPU.

    Args:
        bench: the steps; of its densities and blocks the first ones count.

    Returns:
        The settings, and for each step in `steps` its `seconds` and its `parts`: the seconds of each part. The time of
        a part is the operators' own, in the fastest of the rounds; `seconds` is the sum over the parts.

    Raises:
        EvergraftError: a setting out of range, a block that does not divide a layer, or a vocabulary by whose size the
            products of the MLM head cannot be told from others.
    """
    with bench.prepared():
        _check_vocabulary(bench)
        steps = {" ".join(key): step for key, step in bench.steps().items()}
        for step in [*steps.values()] * WARM_UP:
            step()
        rounds = [
            {name: _parts(step, bench.vocabulary_size) for name, step in steps.items()} for _ in range(bench.rounds)
        ]
        parts = {name: {part: min(turn[name][part] for turn in rounds) for part in (*PARTS, OTHER)} for name in steps}
        figures = {name: {"seconds": sum(each.values()), "parts": each} for name, each in parts.items()}
        return bench.settings() | {"bench": "profile", "steps": figures}


def _check_vocabulary(bench: StepBench) -> None:
    """Refuse a vocabulary that is as large as something else, as `part_of` tells the head's products by its size."""
    size = bench.vocabulary_size
    config = bert_config(bench.model, size, bench.sequence_length)
    others = {
        "tokens of a step": bench.batch_size * bench.sequence_length,
        "hidden size": config.hidden_size,
        "intermediate size": config.intermediate_size,
    }
    for name, other in others.items():
        if size == other:
            raise EvergraftError(
                f"`vocabulary_size` {size} equals the {name}, so that a profile could not tell the MLM head's "
                f"products from others; choose another, such as {size + 1}"
            )


def _parts(step: Step, vocabulary: int) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        step()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        seconds[part_of(event, vocabulary)] += event.self_cpu_time_total / 1e6
    return seconds


def part_of(event: FunctionEvent, vocabulary: int) -> str:
    """The part of a step that an operator belongs to: one of PARTS, or OTHER.

    Args:
        event: the operator, as the profiler recorded it.
        vocabulary: number of word pieces; a dense product with this size is the MLM head's.
    """
    names, sizes = [], set()
    caller: FunctionEvent | None = event
    while caller is not None:
        names.append(caller.name)
        shapes: Sequence[Any] = caller.input_shapes or ()
        sizes |= {size for shape in shapes if isinstance(shape, list) for size in shape}
        caller = caller.cpu_parent
    chain = " ".join(names)
    part = next((part for part, pattern in PARTS.items() if re.search(pattern, chain)), OTHER)
    return "MLM head" if vocabulary in sizes and part in ("dense products", OTHER) else part
