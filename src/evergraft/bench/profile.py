"""`evergraft bench profile`: where the time of a training step goes, in stock, lean dense and sparse models."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from evergraft.bench.step import CLIPPING, WARM_UP, Step, StepBench
from evergraft.bert.model import bert_config
from evergraft.errors import EvergraftError

# The first of these that matches an operator's name, or that of one it was called from, says what it is for.
PARTS = {
    "AdamW": r"Optimizer\.(step|zero_grad)",
    "clipping": CLIPPING,
    "MLM head": r"_VocabularyLoss|cross_entropy|nll_loss|NllLoss|log_softmax|LogSoftmax",
    "sparse products": r"evergraft|_SparseLinear",
    "dropout": r"[Dd]ropout(?!.*scaled_dot)|bernoulli",
    "attention": r"_Attention|scaled_dot_product|ScaledDotProduct|bmm|Bmm|softmax|Softmax",
    "GELU": r"[Gg]elu",
    "layer norm": r"layer_norm|LayerNorm|ResidualNorm",
    "embeddings": r"[Ee]mbedding",
    "dense products": r"aten::(addmm|mm|linear)\b|AddmmBackward|MmBackward|mkldnn|_Linear",
}
OTHER = "the rest: sums, casts, copies"


def profile_steps(bench: StepBench) -> dict[str, Any]:
    """Profile every step of a bench.

    Returns:
        The settings, and as `steps`, for each step: its `seconds`, and as `parts` the seconds of each. Each part is the
        fastest of the rounds, of the operators' own time; `seconds` is their sum.

    Raises:
        EvergraftError: as `StepBench.run`; or a vocabulary of a size by which the head's products cannot be known.
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
    """Refuse a vocabulary as large as something else: `part_of` knows the head's products by its size."""
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
                f"vocabulary size {size} equals the {name}, and a profile could not tell the MLM head's products from "
                f"others; choose another, {size + 1} say"
            )


def _parts(step: Step, vocabulary: int) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        step()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        seconds[part_of(event, vocabulary)] += event.self_cpu_time_total / 1e6
    return seconds


def part_of(event: FunctionEvent, vocabulary: int) -> str:
    """What an operator is for: one of PARTS or OTHER."""
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
