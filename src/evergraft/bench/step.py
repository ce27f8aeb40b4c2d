"""`evergraft bench step`: the time of a whole training step of a sparse BERT, beside that of dense ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function
from transformers import BertConfig, BertForPreTraining

from evergraft.bench.peaks import Peak, measured_peak
from evergraft.bench.products import DTYPES, check_device, check_precision, rates, tier
from evergraft.bench.records import LEAN, LEAN_ONEDNN, SPARSE, STOCK
from evergraft.bench.timing import fastest, torch_threads
from evergraft.bert.config import OWN_KEYS, SparseBertConfig, bert_config
from evergraft.bert.ledger import Ledger, ledger
from evergraft.bert.masking import masking_budget
from evergraft.bert.model import SparseBertForPreTraining, create_model
from evergraft.evolution.updater import TopologyUpdater
from evergraft.kernels.onednn import OneDnnLinear, has_onednn
from evergraft.kernels.vocabulary_loss import IGNORED
from evergraft.sparse.config import STACK, SparsityConfig
from evergraft.sparse.conversion import sparse_layers, sparsify
from evergraft.sparse.products import check_backend, choose_backend

CLIPPING = "clipping of gradients"  # what the profiler calls it
WARM_UP = 3  # steps until the heap holds all the memory that a step needs, and no page is touched for the first time
Rival = tuple[str, str]  # SPARSE, LEAN, STOCK or LEAN_ONEDNN, and its precision
Figures = dict[str, Any]


class Step:
    """A training step as a call. It computes all that `transformers.Trainer` does: forward, backward, clipping, AdamW.

    Args:
        model: returns an output with a `loss`.
        inputs: the keyword arguments that the model is called with.
        precision: `fp32`, or `bf16` by autocast.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, Tensor], precision: str) -> None:
        self.model = model.train()
        self.inputs = inputs
        self.precision = precision
        on_gpu = next(model.parameters()).is_cuda  # where the step may be captured in a CUDA graph
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.01, fused=True, capturable=on_gpu
        )

    def __call__(self) -> None:
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(**self.inputs).loss
        loss.backward()
        with record_function(CLIPPING):
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


@dataclass(frozen=True)
class StepBench:
    """A measurement of a training step on random tokens, 15 % of them masked, at one or more densities and blocks.

    Args:
        model: name of a size, such as `base`, or the path of a config.json.
        densities: shares of the encoder's blocks that exist, in (0, 1]; every density is measured with every block.
        blocks: rows and columns of blocks.
        precision: `fp32` or `bf16`, for the sparse step; dense steps run in both where bf16 is fast.
        batch_size: sequences in a step.
        sequence_length: tokens in a sequence.
        vocabulary_size: word pieces of the MLM head; the default is the vocabulary of the original BERT.
        threads: CPU threads for torch and the native products; None takes as many as torch has.
        rounds: how many rounds are timed; each figure is from the fastest.
        backend: name of the backend of the sparse products, or `auto`.
        device: `cpu` or `cuda`.
        all_rivals: whether to time all dense steps, or the lean one in the same precision alone.
        seed: the seed of weights, topologies and tokens.

    Example:
        >>> result = StepBench("mini", densities=(0.1,), blocks=((16, 16),)).run()
        >>> result["ratio"]  # how many times faster than the lean dense step in the same precision
    """

    model: str = "base"
    densities: tuple[float, ...] = (0.1,)
    blocks: tuple[tuple[int, int], ...] = ((16, 16),)
    precision: str = "fp32"
    batch_size: int = 32
    sequence_length: int = 128
    vocabulary_size: int = 30522
    threads: int | None = None
    rounds: int = 3
    backend: str = "auto"
    device: str = "cpu"
    all_rivals: bool = True
    seed: int = 0

    def run(self, peak_size: int = 2048) -> Figures:
        """Measure the step.

        Args:
            peak_size: number of rows and columns of the matrices whose product measures the machine's peak.

        Returns:
            The settings, and beside them the step's figures; with several densities or blocks, `results` is a list of
            the figures of each. Times are in seconds, rates in GFLOP/s, and a ratio is the rival's time over ours.

        Raises:
            EvergraftError: a setting out of range, or a block that does not divide a layer.
        """
        with self.prepared():
            peak = measured_peak(DTYPES[self.precision], self.device, peak_size)
            rivals = self._rivals()
            measured = [self._measure(*pair, rivals, peak) for pair in self._pairs()]
            return self.settings() | (measured[0] if len(measured) == 1 else {"results": measured})

    def steps(self) -> dict[Rival, Step]:
        """The steps by name and precision: the dense ones, and the sparse one with the first density and block."""
        return {**self._rivals(), (SPARSE, self.precision): self._sparse_step(*self._pairs()[0])}

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Check the settings, and set the number of threads inside the `with`.

        Raises:
            EvergraftError: a setting out of range, or a block that does not divide a layer.
        """
        self._check()
        with torch_threads(self.threads):
            yield

    def _pairs(self) -> list[tuple[float, tuple[int, int]]]:
        return [(density, block) for block in self.blocks for density in self.densities]

    def _check(self) -> None:
        check_backend(self.backend)
        check_precision(self.precision)
        check_device(self.device)
        for density, block in self._pairs():
            self._ledger(density, block)

    def settings(self) -> Figures:
        """The settings of the measurement, as its result holds them."""
        return {
            "bench": "step",
            "model": self.model,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "vocabulary_size": self.vocabulary_size,
            "threads": torch.get_num_threads(),
            "device": self.device,
            "seed": self.seed,
            "rounds": self.rounds,
        }

    def _rivals(self) -> dict[Rival, Step]:
        """The dense steps. The fp32 and the bf16 step of a rival share one model."""
        lean, inputs = self._compiled(self._model()), self._inputs()
        if not self.all_rivals:
            return {(LEAN, self.precision): Step(lean, inputs, self.precision)}
        stock = _stock(self._config()).to(self.device)  # type: ignore[arg-type]
        full = with_full_head(inputs)
        steps = {
            **{(STOCK, precision): Step(stock, full, precision) for precision in self._precisions()},
            **{(LEAN, precision): Step(lean, inputs, precision) for precision in self._precisions()},
        }
        if self.device == "cpu" and has_onednn():
            steps[LEAN_ONEDNN, "fp32"] = Step(_on_onednn(self._model()), inputs, "fp32")
        return steps

    def _precisions(self) -> list[str]:
        """The precisions of the rivals: fp32, and bf16 where it is asked for or fast.

        On a CPU without bf16 products a bf16 step takes minutes.
        """
        fast = self.device != "cpu" or has_onednn(torch.bfloat16)
        return [precision for precision in DTYPES if fast or precision in ("fp32", self.precision)]

    def _measure(self, density: float, block: tuple[int, int], rivals: dict[Rival, Step], peak: Peak) -> Figures:
        step = self._sparse_step(density, block)
        tasks = {(SPARSE, self.precision): step, **rivals}
        seconds = fastest(tasks, self.rounds, warm_up=WARM_UP, device=self.device, graphs=True)
        ours = seconds.pop((SPARSE, self.precision))
        cost = self._ledger(density, block)
        ratios = {rival: dense / ours for rival, dense in seconds.items()}
        figures = {
            "block": f"{block[0]}x{block[1]}",
            "density": cost.density,
            **self._backend(step.model),
            "peak": peak.to_dict(),
            "ratio": ratios[LEAN, self.precision],
            "ratio_best_dense": _best(LEAN, ratios),
            "ratio_stock": _best(STOCK, ratios),
            "seconds": ours,
            "tokens_per_second": self.batch_size * self.sequence_length / ours,
            **rates(cost.flops_per_sequence * self.batch_size, ours, peak),
            "bytes": cost.bytes,
            "bytes_dense": (cost.dense or cost).bytes,
            "bytes_ratio": sum(cost.bytes.values()) / sum((cost.dense or cost).bytes.values()),
            "rivals": {" ".join(rival): {"seconds": dense, "ratio": ratios[rival]} for rival, dense in seconds.items()},
        }
        return figures | {"topology_update": self._update(step, ours)}

    def _sparse_step(self, density: float, block: tuple[int, int]) -> Step:
        model = self._model()
        sparsify(model, density, block, seed=self.seed, backend=self.backend)
        return Step(self._compiled(model), self._inputs(), self.precision)

    def _compiled(self, model: SparseBertForPreTraining) -> SparseBertForPreTraining:
        """Compile the layers of a model on a GPU, in place; one compilation serves all of them."""
        if self.device == "cuda":
            torch._dynamo.config.recompile_limit = 64  # the layers of all models share one piece of code
            for layer in model.bert.encoder.layer:
                layer.compile(dynamic=False)
        return model

    def _update(self, step: Step, step_seconds: float) -> Figures:
        """The time of the largest topology update, which exchanges half of the blocks, in seconds and in steps."""
        updater = TopologyUpdater(step.model, step.optimizer)
        seconds = fastest({"update": lambda: updater.update(0.5)}, self.rounds, device=self.device)["update"]
        return {"seconds": seconds, "steps": seconds / step_seconds}

    def _backend(self, model: nn.Module) -> Figures:
        layer = next(iter(sparse_layers(model).values()))
        values = layer.values.detach().to(DTYPES[self.precision])
        backend = choose_backend(self.backend, values.new_empty(1, layer.in_features), values)
        return {"backend": backend.name, "tier": tier(backend)}

    def _model(self) -> SparseBertForPreTraining:
        model: SparseBertForPreTraining = create_model(self._config(), self.seed).to(self.device)  # type: ignore[arg-type]
        return model

    def _config(self) -> SparseBertConfig:
        return bert_config(self.model, self.vocabulary_size, self.sequence_length)

    def _ledger(self, density: float, block: tuple[int, int]) -> Ledger:
        return ledger(self._config(), SparsityConfig(density=density, block=block), self.sequence_length)

    def _inputs(self) -> dict[str, Tensor]:
        """A batch as `PretrainingExamples` gives it, of random tokens."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = self.batch_size, self.sequence_length
        tokens = torch.randint(self.vocabulary_size, shape, generator=generator)
        order = torch.rand(shape, generator=generator).argsort(1)
        positions = order[:, : masking_budget(self.sequence_length)].sort(1).values
        inputs = {
            "input_ids": tokens,
            "token_type_ids": (torch.arange(shape[1]) > shape[1] // 2).long().expand(shape),
            "masked_positions": positions,
            "labels": tokens.gather(1, positions),
            "next_sentence_label": torch.randint(2, shape[:1], generator=generator),
        }
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}


def with_full_head(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch in the form that transformers' BertForPreTraining takes: a label for every token, and a padding mask.

    Args:
        inputs: a batch of `StepBench`, whose `labels` [batch, masked] lie at its `masked_positions` [batch, masked].

    Returns:
        The batch with `labels` [batch, tokens], int64, and `attention_mask` [batch, tokens], int64.
    """
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    labels.scatter_(1, inputs["masked_positions"], inputs["labels"])
    kept = {name: tensor for name, tensor in inputs.items() if name != "masked_positions"}
    return kept | {"labels": labels, "attention_mask": torch.ones_like(labels)}


def _stock(config: SparseBertConfig) -> BertForPreTraining:
    """BERT as transformers builds it, with the sizes of the configuration."""
    settings = {key: value for key, value in config.to_dict().items() if key not in OWN_KEYS}
    return BertForPreTraining(BertConfig(**settings))


def _on_onednn(model: nn.Module) -> nn.Module:
    """Let oneDNN multiply in the linear layers of the encoder in fp32, as it does in bf16 anyway. In place."""
    for name, linear in list(model.named_modules()):
        if type(linear) is nn.Linear and fnmatchcase(name, STACK[0]):
            on_onednn = OneDnnLinear(linear.in_features, linear.out_features, device="meta")
            on_onednn.weight, on_onednn.bias = linear.weight, linear.bias
            model.set_submodule(name, on_onednn)
    return model


def _best(name: str, ratios: Mapping[Rival, float]) -> float | None:
    """The ratio to a rival in its faster precision; None if the rival did not run."""
    return min((ratio for rival, ratio in ratios.items() if rival[0].startswith(name)), default=None)
