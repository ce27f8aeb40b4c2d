"""What fine-tuned models come to, by task, beside the dense model that was pre-trained alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from evergraft.study.collection import Collection, Configuration
from evergraft.study.scores import Score
from evergraft.study.sections import Part
from evergraft.study.statistics import INTERVAL, paired_difference, t_interval
from evergraft.study.tables import Table

Scores = dict[Score, dict[int, float]]  # by seed of the run, the mean over its fine-tunings
HEADER = ("task", "configuration", "encoder", "fine-tuned", "models", "metric", "over dense")
NOTE = (
    "Validation metrics of `evergraft finetune`. Several fine-tunings of one model (all of them in brackets) count "
    f"as their mean; {INTERVAL}, the difference from the dense model is paired by them. That is "
    "the one pre-trained alike, in whatever precision, fine-tuned as long on as large batches of the same data, at "
    "the best of its own rates; - where there is none."
)
METRIC_NAMES = {"matthews_correlation": "Matthews", "pearson": "Pearson", "spearman": "Spearman", "f1": "F1"}


def transfer(collection: Collection) -> Table:
    """A table with a row for each task, metric, configuration and way of fine-tuning."""
    scored = [(one, _scores(one)) for one in collection.configurations]
    every = [score for _, scores in scored for score in scores]
    rows = []
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
    return Table("transfer", "Fine-tuning", NOTE, HEADER, tuple(sorted(rows, key=lambda row: row[0])))


def _scores(one: Configuration) -> Scores:
    scores: Scores = defaultdict(dict)
    for record in one.records:
        for score, values in record.scores.items():
            scores[score] |= {record.recipe.seed: mean(values)} if values else {}
    return scores


def _best_dense(dense: Sequence[Scores], score: Score, by_seed: Mapping[int, float]) -> dict[int, float]:
    """What the dense models came to with the same fine-tuning, by seed, at the learning rate that was best.

    That is the rate with the best mean over the seeds that are compared, of the rates with the most of these seeds.
    """

    def rank(theirs: Mapping[int, float]) -> tuple[int, float]:
        shared = theirs.keys() & by_seed.keys()
        return len(shared), mean(theirs[seed] for seed in shared) if shared else 0.0

    every = [scored for scores in dense for scored in scores.items()]
    alike = [theirs for its, theirs in every if its.of_dense == score.of_dense]
    return max(alike, key=rank, default={})


def _task(score: Score, others: Iterable[Score]) -> str:
    """The task's name, with what tells its data from other data of that name where there are several."""
    several = len({one.data_identity for one in others if one.task == score.task}) > 1
    return f"{score.task} ({score.data_identity[:8] or 'unknown data'})" if several else score.task


def _how(score: Score) -> str:
    epochs = f"{score.epochs} epoch{'s' * (score.epochs > 1)}"
    return f"{epochs}, batches of {score.batch_size}, rate {score.learning_rate:g}"


TABLE = Part("transfer", lambda collection: [transfer(collection)])
