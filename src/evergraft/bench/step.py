"""`evergraft bench step`: one whole training step of a sparse BERT against dense ones."""

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
from evergraft.bench.timing import fastest, torch_threads
from evergraft.bert.ledger import Ledger, ledger
from evergraft.bert.masking import IGNORED, masking_budget
from evergraft.bert.model import OWN_KEYS, SparseBertConfig, SparseBertForPreTraining, bert_config, create_model
from evergraft.evolution import TopologyUpdater
from evergraft.kernels.onednn import OneDnnLinear, has_onednn
from evergraft.sparse.conversion import STACK, sparse_layers, sparsify
from evergraft.sparse.products import check_backend, choose_backend

SPARSE, LEAN, STOCK = "sparse", "lean dense", "stock transformers"
LEAN_ONEDNN = "lean dense (oneDNN)"
CLIPPING = "clipping of gradients"  # its name in a profile
WARM_UP = 3  # steps until the heap has the memory that a step needs, and no page is touched for the first time
Rival = tuple[str, str]  # one of these names, and its precision
Figures = dict[str, Any]


class Step:
    """A training step as a call: forward, backward, clipping, fused AdamW; all that `transformers.Trainer` computes.

    Args:
        model: returns an output with a `loss`.
        inputs: of the model.
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
    """What is measured: a training step on random tokens, 15 % of them masked, at one or more densities and blocks.

    Args:
        model: of the family, or a config.json.
        densities, blocks: every pair of them.
        precision: `fp32` or `bf16` of the sparse step; rivals run in both, in bf16 where it is fast.
        batch_size, sequence_length, vocabulary_size: sizes of the step; the vocabulary is BERT's own by default.
        threads: of torch and the native products; by default as many as torch has.
        rounds: each is the fastest of so many.
        backend: of the sparse products.
        device: `cpu` or `cuda`.
        all_rivals: otherwise the lean dense step of the same precision alone.
        seed: of weights, topologies and tokens.
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
        """Measure.

        Args:
            peak_size: side of the matrices whose product measures the peak.

        Returns:
            The settings and the figures of the step; of several, a list of their figures as `results`.

        Raises:
            EvergraftError: a setting out of range, or a block that does not divide a layer.
        """
        with self.prepared():
            peak = measured_peak(DTYPES[self.precision], self.device, peak_size)
            rivals = self._rivals()
            measured = [self._measure(*pair, rivals, peak) for pair in self._pairs()]
            return self.settings() | (measured[0] if len(measured) == 1 else {"results": measured})

    def steps(self) -> dict[Rival, Step]:
        """The steps by name and precision: dense ones, and the sparse one of the first density and block."""
        return {**self._rivals(), (SPARSE, self.precision): self._sparse_step(*self._pairs()[0])}

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Check the settings, and set the threads for a while.

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
        """What was measured, for the result."""
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
        """The dense steps; the two precisions of one share its model."""
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
        """Of the rivals: bf16 where it is asked or fast; on a CPU without products in it a step takes minutes."""
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
        """On a GPU with compiled layers, in place: one compilation serves all layers of a model."""
        if self.device == "cuda":
            torch._dynamo.config.recompile_limit = 64  # models are many, the code of their layers is one
            for layer in model.bert.encoder.layer:
                layer.compile(dynamic=False)
        return model

    def _update(self, step: Step, step_seconds: float) -> Figures:
        """Seconds of a topology update that exchanges half of the blocks, the largest; and how many steps that is."""
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
        return ledger(self._config(), density, block, self.sequence_length)

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
    """The same batch for transformers' BertForPreTraining: a label for every token, and a mask of padding."""
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    labels.scatter_(1, inputs["masked_positions"], inputs["labels"])
    kept = {name: tensor for name, tensor in inputs.items() if name != "masked_positions"}
    return kept | {"labels": labels, "attention_mask": torch.ones_like(labels)}


def _stock(config: SparseBertConfig) -> BertForPreTraining:
    """The same sizes as users of transformers get them."""
    settings = {key: value for key, value in config.to_dict().items() if key not in OWN_KEYS}
    return BertForPreTraining(BertConfig(**settings))


def _on_onednn(model: nn.Module) -> nn.Module:
    """Let the linear layers of the encoder be multiplied by oneDNN, which in bf16 they are anyway."""
    for name, linear in list(model.named_modules()):
        if type(linear) is nn.Linear and fnmatchcase(name, STACK[0]):
            linear.__class__ = OneDnnLinear
    return model


def _best(name: str, ratios: Mapping[Rival, float]) -> float | None:
    """The ratio to a rival at its fastest; None if it did not run."""
    return min((ratio for rival, ratio in ratios.items() if rival[0].startswith(name)), default=None)
