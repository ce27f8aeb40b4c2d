"""The tables of a report, as text that Markdown, CSV and HTML share."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from evergraft.errors import EvergraftError
from evergraft.study.collection import SETTINGS, Collection, Configuration, RunRecord, Score
from evergraft.study.paper import PUBLISHED_FLOP_RATIOS, Comparison, comparisons
from evergraft.study.pareto import equal_loss
from evergraft.study.rates import sweeps
from evergraft.study.statistics import INTERVAL, Estimate, log_t_interval, paired_difference, t_interval, verdict

Cell = str
Scores = dict[Score, dict[int, float]]
METRIC_NAMES = {"matthews_correlation": "Matthews", "pearson": "Pearson", "spearman": "Spearman", "f1": "F1"}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: names it in a page's links.
        title: what it shows.
        note: how to read it; empty where the table before says it.
        header: one word or two a column.
        rows: as many cells as the header has; the first is the row's name.
    """

    key: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @cached_property
    def wordy(self) -> set[int]:
        """The columns that hold words, not figures."""
        columns = enumerate(zip(*self.rows, strict=True))
        return {index for index, cells in columns if any(cell[:1].isalpha() for cell in cells)}

    def to_markdown(self) -> str:
        """A heading, the note, a pipe table."""
        rule = "|---|" + "---:|" * (len(self.header) - 1)
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (self.header, *self.rows)
        ]
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *note, lines[0], rule, *lines[1:], ""])


def tables(collection: Collection) -> list[Table]:
    """Every table that the runs have figures for."""
    made = [
        summary(collection),
        equal_loss_table(collection),
        dynamic_against_static(collection),
        *(
            comparison_table(comparison, number)
            for number, comparison in enumerate(comparisons(collection.configurations))
        ),
        learning_rates(collection),
        transfer(collection),
        memory(collection),
    ]
    return [table for table in made if table is not None and table.rows]


def summary(collection: Collection) -> Table:
    """One row a configuration."""
    header = (
        "configuration", "seeds", "density got", "MLM loss, nats", "NSP loss, nats",
        "FLOPs", "seconds", "explored", "removed-new ratio",
    )  # fmt: skip
    rows = tuple(
        (
            one.label,
            str(len(one.records)),
            f"{one.records[0].result['density']:.4f}",
            one.loss.text(4),
            one.estimate("validation_nsp_loss").text(4),
            f"{one.estimate('flops_total').mean:.3e}",
            one.estimate("steady_seconds").text(1),
            _optional(one, "explored"),
            _optional(one, "removed_new_ratio"),
        )
        for one in collection.configurations
    )
    note = (
        f"Validation losses after training; {INTERVAL}. FLOPs are those of the encoder. Seconds are those of training "
        "alone, at the median pace of a run's log windows, measured on the machines named below with whatever else ran "
        "there."
    )
    return Table("summary", "Results", note, header, rows)


def equal_loss_table(collection: Collection) -> Table:
    """What sparsity costs at equal loss; no row without a dense family of two sizes."""
    rows = tuple(
        (
            one.configuration.label,
            _ratio(one.ratios["flops_total"]),
            "-" if one.critical_cost is None else f"{one.critical_cost:.2f}",
            _ratio(one.ratios["steady_seconds"]),
            _ratio(one.ratios["bytes_total"]),
            _seeds(*one.ratios.values()),
        )
        for one in equal_loss(collection.configurations)
    )
    note = (
        "Cost of a sparse configuration over that of the dense family at the same validation MLM loss, by log-log "
        "interpolation between the dense models of the same seed; below 1 is a win. Geometric means with 95 % "
        "intervals, Student's t of the logarithms over the seeds that all of them share. Nothing is extrapolated: "
        "where the loss of a seed is not between dense models there is no ratio; those that another one beats in both "
        "cost and loss are passed over. The critical cost is how many times slower a sparse FLOP may run than a dense "
        "one before the win is lost. Memory is that of the encoder's linear layers in training (weights, gradients, "
        "Adam's moments, indices), by the ledger; activations, which grow with a model's width, are not in it. The "
        f"paper's FLOP ratios: {PUBLISHED_FLOP_RATIOS}."
    )
    header = ("configuration", "FLOP ratio", "critical cost", "wall-clock ratio", "memory ratio", "shared seeds")
    return Table("equal-loss", "Cost at equal loss", note, header, rows)


def dynamic_against_static(collection: Collection) -> Table | None:
    """Every dynamic configuration beside the static one that differs in nothing else."""
    static = {_but_for_updates(one): one for one in collection.family("static")}
    rows = []
    for one in collection.family("dynamic"):
        other = static.get(_but_for_updates(one))
        if other is None:
            continue
        difference = paired_difference(other.losses, one.losses)
        rows.append(
            (
                one.label, other.loss.text(4), one.loss.text(4),
                _nats(difference), _seeds(difference), verdict(difference, lambda mean: mean < 0),
            )
        )  # fmt: skip
    header = ("configuration", "static", "dynamic", "dynamic - static", "shared seeds", "dynamic better?")
    note = (
        "Validation MLM loss, nats. The paper finds dynamic below static at every sparsity. Differences are paired by "
        f"seed, over those that both have; {INTERVAL}; within noise: the interval holds zero."
    )
    return Table("dynamic-static", "Dynamic against static", note, header, tuple(rows))


def comparison_table(comparison: Comparison, number: int) -> Table:
    """A table of the paper beside ours; the first, number 0, says how to read them all."""
    rows = tuple(
        (
            ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row.setting),
            f"{row.published:.3f}",
            row.configuration.loss.text(4) + f" ({row.chosen})" * bool(row.chosen),
            _nats(row.difference),
            _seeds(row.difference),
            row.same_order,
        )
        for row in comparison.rows
    )
    shared = f" (ours: {comparison.shared})" if comparison.shared else ""
    header = (
        ", ".join(name.replace("_", " ") for name in comparison.table.by),
        "paper", "ours", "ours - row above", "shared seeds", "same ordering? within noise?",
    )  # fmt: skip
    note = (
        "Validation MLM loss, nats, from the paper's best to its worst. Ours are other models, text and lengths of "
        "training: what is compared is the order. Each row is compared with the row above it, paired by seed. In "
        "brackets: what ours has where it is the best of several."
    )
    title = f"Beside the paper: {comparison.table.title}{shared}"
    return Table(f"paper-{number}", title, "" if number else note, header, rows)


def learning_rates(collection: Collection) -> Table:
    """The best learning rate by density beside the paper's formula; no row where fewer than three rates were tried."""
    rows = tuple(
        (
            " ".join(dict.fromkeys((sweep.best.family, sweep.best.model, sweep.best.block))),
            f"{1 - sweep.best.recipe.density:g}",
            f"{sweep.best.recipe.learning_rate:g}" + " (at the edge)" * sweep.at_edge,
            sweep.best.loss.text(4),
            ", ".join(_above(sweep.best, other) for other in sweep.by_rate if other is not sweep.best),
            log_t_interval(list(sweep.optima.values())).text(5) if sweep.optima else "-",
            sweep.over_dense.text(2) if sweep.over_dense else "-",
            f"{sweep.factor:.2f}",
        )
        for sweep in sweeps(collection.configurations)
    )
    note = (
        "Validation MLM losses, nats; differences are paired by seed. The optimum is where a parabola through the best "
        "rate and its two neighbours is lowest, over the logarithm of the rate and for each seed apart. The formula: "
        f"eta(s) / eta(0) = exp(1.969 s^2 + 0.2905 s). {INTERVAL}, of rates and their ratios those of the logarithms."
    )
    header = (
        "configuration", "sparsity", "best rate", "loss there", "other rates: loss above that", "optimum",
        "over the dense optimum", "formula",
    )  # fmt: skip
    return Table("learning-rate", "Learning rates", note, header, rows)


def transfer(collection: Collection) -> Table:
    """What fine-tuned models come to, by task, beside the dense model that was pre-trained alike."""
    rows = []
    scored = [(one, _scores(one)) for one in collection.configurations]
    every = [score for _, scores in scored for score in scores]
    for one, scores in scored:
        dense = [theirs for other, theirs in scored if other.dense and one.pretrained_like(other)]
        for score, by_seed in sorted(scores.items()):
            beside = {} if one.dense else _best_dense(dense, score, by_seed)
            over = paired_difference(beside, by_seed)
            times = sum(len(record.scores.get(score, [])) for record in one.records)
            rows.append(
                (
                    f"{_task(score, every)}, {METRIC_NAMES.get(score.metric, score.metric)}",
                    one.label,
                    "densified" if score.densified else f"{score.updates} updates" if score.updates else "as it was",
                    _how(score),
                    f"{len(by_seed)} ({times})",
                    t_interval(list(by_seed.values())).text() if by_seed else "undefined",
                    "-" if over is None else over.text(),
                )
            )
    note = (
        "Validation metrics of `evergraft finetune`. Several fine-tunings of one model (all of them in brackets) count "
        f"as their mean; {INTERVAL}, the difference from the dense model is paired by them. That is "
        "the one pre-trained alike, in whatever precision, fine-tuned as long on as large batches of the same data, at "
        "the best of its own rates; - where there is none."
    )
    header = ("task", "configuration", "encoder", "fine-tuned", "models", "metric", "over dense")
    return Table("transfer", "Fine-tuning", note, header, tuple(sorted(rows, key=lambda row: row[0])))


def memory(collection: Collection) -> Table:
    """Bytes of the encoder's linear layers."""
    rows = []
    for one in collection.configurations:
        figures = one.records[0].figures
        share = figures["bytes_total"] / sum(figures["bytes_dense"].values())
        rows.append((one.label, *map(_megabytes, figures["bytes"].values()), f"{share:.3f}"))
    header = ("configuration", "weights", "gradients", "Adam's moments", "indices", "of dense")
    note = "Megabytes of the encoder's linear layers in training, by the ledger: shapes counted, not peaks measured."
    return Table("memory", "Memory", note, header, tuple(rows))


def runs_csv(collection: Collection) -> str:
    """One line a run: name, family, folder, recipe and result; for spreadsheets and scripts."""
    return _csv([_flat(record) for record in collection.records])


def scores_csv(collection: Collection) -> str:
    """One line a score: the run's name and family, how it was fine-tuned, by which seed, the metric and its value.

    Raises:
        EvergraftError: no run of the collection has been fine-tuned.
    """
    how = (*SETTINGS, "data_identity", "seed")
    rows = [
        {"name": record.name, "family": record.family}
        | {name: result.get(name) for name in how}
        | {"metric": metric, "value": value}
        for record in collection.records
        for result in record.finetuned
        for metric, value in result["metrics"].items()
    ]
    if not rows:
        folder = collection.records[0].folder
        raise EvergraftError(f"no run has been fine-tuned; begin with: evergraft finetune {folder} --task TASK")
    return _csv(rows)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    fields = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"name": record.name, "family": record.family}
    result = {name: value for name, value in record.result.items() if name != "density"}
    row |= record.recipe.model_dump(mode="json") | {"density_got": record.result["density"]} | result
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{key}": inner for key, inner in value.items()}
        else:
            flat[name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _but_for_updates(one: Configuration) -> str:
    return one.setting(updates=0, prune_ratio=0.5, prune_by="l1", prune_decay="cosine")


def _nats(difference: Estimate | None) -> str:
    return "-" if difference is None else difference.text(4)


def _seeds(*estimates: Estimate | None) -> str:
    """How many there are in estimates of the same seeds."""
    return next((str(one.seeds) for one in estimates if one is not None), "-")


def _above(best: Configuration, other: Configuration) -> str:
    return f"{other.recipe.learning_rate:g}: {_nats(paired_difference(best.losses, other.losses))}"


def _ratio(ratio: Estimate | None) -> str:
    return "not between dense models" if ratio is None else ratio.text()


def _task(score: Score, others: Iterable[Score]) -> str:
    """Its name, and what tells its data from other data of that name."""
    several = len({one.data_identity for one in others if one.task == score.task}) > 1
    return f"{score.task} ({score.data_identity[:8] or 'unknown data'})" if several else score.task


def _how(score: Score) -> str:
    epochs = f"{score.epochs} epoch{'s' * (score.epochs > 1)}"
    return f"{epochs}, batches of {score.batch_size}, rate {score.learning_rate:g}"


def _best_dense(dense: Sequence[Scores], score: Score, by_seed: Mapping[int, float]) -> dict[int, float]:
    """By seed, what the dense models came to with the same fine-tuning, at the rate that was best in the mean: over the
    seeds that are compared, and of the rates that have the most of these.
    """

    def rank(theirs: Mapping[int, float]) -> tuple[int, float]:
        shared = theirs.keys() & by_seed.keys()
        return len(shared), mean(theirs[seed] for seed in shared) if shared else 0.0

    every = [scored for scores in dense for scored in scores.items()]
    alike = [theirs for its, theirs in every if its.of_dense == score.of_dense]
    return max(alike, key=rank, default={})


def _optional(one: Configuration, key: str) -> str:
    return "-" if one.records[0].result[key] is None else one.estimate(key).text()


def _scores(one: Configuration) -> Scores:
    scores: Scores = defaultdict(dict)
    for record in one.records:
        for score, values in record.scores.items():
            scores[score] |= {record.recipe.seed: mean(values)} if values else {}
    return scores


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"
