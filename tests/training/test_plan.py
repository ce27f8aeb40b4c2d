"""What a recipe and a corpus resolve to."""

from __future__ import annotations

import functools
import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from evergraft import EvergraftError
from evergraft.bert import config as bert_config_module
from evergraft.bert.pairs import SentencePairs
from evergraft.corpus import prepare
from evergraft.evolution.growth import GROWTH_RULES
from evergraft.runs.folder import Run
from evergraft.runs.recipe import Recipe
from evergraft.training import plan as plan_module
from evergraft.training.inputs import open_corpus
from evergraft.training.plan import make_plan, usable_device
from evergraft.training.pretrain import pretrain
from tests.conftest import prose


def test_both_dropouts_of_a_configuration_are_kept(small_recipe, tmp_path):
    config = json.loads(Path(small_recipe().model).read_text())
    (tmp_path / "bert.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0})
    )
    recipe = small_recipe(dropout=None, steps=2, updates=1).model_copy(update={"model": str(tmp_path / "bert.json")})
    pretrain(recipe, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (written["hidden_dropout_prob"], written["attention_probs_dropout_prob"]) == (0.2, 0.0)


def test_a_recipe_records_the_vocabulary_of_its_corpus(finished, corpus):
    assert Run.open(finished).recipe.vocabulary_size == corpus.vocabulary_size


def test_a_run_on_fewer_pieces_than_are_ever_learnt_can_be_read_again(small_recipe, corpus, tmp_path):
    """A given vocabulary may be as small as it likes: 30 pieces here."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(" ".join(pieces[5 + number :] * 4) for number in range(10)))
    few = prepare([str(text)], tmp_path / "corpus", tokenizer=tmp_path / "vocab.txt", sequence_length=16)
    recipe = small_recipe(sequence_length=16, steps=2, updates=1).model_copy(update={"corpus": [str(few.path)]})
    pretrain(recipe, tmp_path / "run")
    assert Run.open(tmp_path / "run").recipe.vocabulary_size == 30


def test_text_that_is_left_out_is_told(small_recipe, tmp_path):
    text = "\n\n".join(document if number % 3 else document[:300] for number, document in enumerate(prose(30)))
    (tmp_path / "text.txt").write_text(text)
    corpus = prepare(
        [str(tmp_path / "text.txt")],
        tmp_path / "corpus",
        vocabulary_size=200,
        sequence_length=16,
        validation_fraction=0.3,
    )
    pairs = SentencePairs(corpus, corpus.train, 128)
    assert 0 < pairs.left_out[0] < 10
    recipe = small_recipe(sequence_length=128, steps=2, updates=1).model_copy(update={"corpus": [str(corpus.path)]})
    with pytest.warns(UserWarning, match=rf"^{pairs.left_out[0]} of \d+ training documents, {pairs.left_out[1]:,} tok"):
        pretrain(recipe, tmp_path / "run")


@pytest.fixture
def plan(small_recipe):
    """A function from fields of a recipe to its plan."""

    def make(**fields):
        recipe = small_recipe(**fields)
        return make_plan(recipe, open_corpus(recipe), usable_device(recipe))

    return make


def test_a_plan_leaves_nothing_open(plan, corpus):
    made = plan(learning_rate=None, updates=None, dropout=None)
    assert made.recipe.learning_rate > 0
    assert made.recipe.updates == 1
    assert (made.recipe.encoder_rate, made.recipe.initialisation) == (pytest.approx(0.25**-0.6), "fan_in")
    assert made.recipe.dropout == made.config.hidden_dropout_prob == 0.1
    assert made.recipe.vocabulary_size == made.config.vocab_size == corpus.vocabulary_size
    assert (made.device, made.most_steps, len(made.training), len(made.validation)) == ("cpu", 24, 24 * 8, 16)
    assert made.flops_per_step == 8 * made.ledger.flops_per_sequence


def test_a_resolved_recipe_resolves_to_itself(plan):
    made = plan(learning_rate=None, updates=None, dropout=None)
    again = make_plan(made.recipe, made.corpus, made.device)
    assert again.recipe == made.recipe
    assert again.config.to_dict() == made.config.to_dict()


def test_a_plan_is_frozen(plan):
    with pytest.raises(FrozenInstanceError):
        plan().device = "cuda"


def test_a_run_resolves_its_recipe_once(small_recipe, tmp_path, monkeypatch):
    """The configuration is made once, a model of the config.json is tried out once, the device is chosen once."""
    calls = []

    def counted(module, name):
        function = getattr(module, name)

        def call(*arguments, **settings):
            calls.append(name)
            return function(*arguments, **settings)

        monkeypatch.setattr(module, name, call)

    counted(bert_config_module, "bert_config")
    counted(bert_config_module, "BertForPreTraining")
    counted(plan_module, "resolve_device")
    counted(plan_module, "ledger")
    pretrain(small_recipe(steps=2, updates=1), tmp_path / "run")
    assert sorted(calls) == ["BertForPreTraining", "bert_config", "ledger", "resolve_device"]


def test_what_does_not_fit_is_found_out_before_a_folder_is_made(small_recipe, tmp_path):
    with pytest.raises(EvergraftError, match="block 5x5 does not divide"):
        pretrain(small_recipe(block="5x5"), tmp_path / "run")
    with pytest.raises(EvergraftError, match="use a shorter `sequence_length`"):
        pretrain(small_recipe(sequence_length=4096), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_for_a_corpus_that_has_its_own_is_refused(small_recipe):
    with pytest.raises(EvergraftError, match=r"the prepared corpus .* has its own; leave `tokenizer` out"):
        open_corpus(small_recipe(tokenizer="vocab.txt"))


@pytest.fixture
def growing():
    """A growth rule, `asking`, that can be given the marks of what rules ask for."""
    rule = functools.partial(GROWTH_RULES.get("random"))
    GROWTH_RULES.register("asking")(rule)
    yield rule
    GROWTH_RULES.unregister("asking")


def test_a_rule_that_a_run_cannot_carry_out_is_refused(plan, growing):
    assert plan(grow_by="asking").recipe.grow_by == "asking"
    growing.changes_count = True
    with pytest.raises(EvergraftError, match="`grow_by` asking: the rule changes how many blocks there are"):
        plan(grow_by="asking")
    growing.changes_count, growing.uses_gradients = False, True
    assert plan(grow_by="asking").recipe.grow_by == "asking"
    with pytest.raises(EvergraftError, match="`grow_by` asking: the rule looks at gradients, which a compiled step"):
        make_plan(small := plan(grow_by="asking").recipe.replace(compile=True), open_corpus(small), "cpu")


def test_updates_that_do_not_fit_are_refused_in_new_runs_and_go_on_in_old_ones(plan, small_recipe, tmp_path):
    crammed = small_recipe(steps=24, updates=12, update_until=0.5)
    with pytest.raises(
        EvergraftError, match=r"12 updates in 24 steps up to 0\.5 of the run .* at most 6, or a longer run"
    ):
        pretrain(crammed, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert plan(steps=24, updates=12, update_until=0.5).recipe.updates == 12
    assert plan(steps=2, updates=None).recipe.updates == 1


def test_overrides_make_a_model_of_density_1_sparse(plan):
    made = plan(density=1, block=(4, 4), overrides={"*.query": 0.25}, updates=2)
    assert made.is_sparse
    assert 0.9 < made.ledger.density < 1
    assert made.config.sparsity_config.overrides == made.recipe.overrides
    assert not plan(density=1, overrides={"*.query": "8x8"}).is_sparse


@pytest.mark.parametrize(
    ("asked", "encoder_rate"),
    [
        ({"density": 0.1}, 3.981),
        ({"density": 1.0}, 1.0),
        ({"density": 0.1, "learning_rate": 1e-3}, 1.0),  # one that was asked for is that of all weights
        ({"density": 0.1, "learning_rate": 1e-3, "encoder_rate": 2.0}, 2.0),
        ({"density": 0.1, "encoder_rate": 2.0}, 2.0),
    ],
    ids=str,
)
def test_what_is_dense_has_the_dense_rate(small_recipe, asked, encoder_rate):
    recipe = small_recipe(**{"learning_rate": None, "block": "4x4", **asked})
    resolved = make_plan(recipe, open_corpus(recipe), usable_device(recipe)).recipe
    assert resolved.encoder_rate == pytest.approx(encoder_rate, rel=1e-3)
    assert resolved.learning_rate == (asked.get("learning_rate") or pytest.approx(0.012, rel=0.5))
    assert make_plan(resolved, open_corpus(recipe), usable_device(recipe)).recipe == resolved


@pytest.mark.parametrize(
    ("length", "block", "updates"),
    [
        ({"steps": 10}, "4x4", 1), ({"steps": 5999}, "4x4", 5), ({"steps": 10**6}, "4x4", 80),
        ({"steps": 10**6}, "1x1", 160), ({"minutes": 1}, "1x1", 160), ({"steps": 2}, "1x1", 1),
    ],
    ids=str,
)  # fmt: skip
def test_a_topology_is_updated_once_in_a_thousand_steps(length, block, updates):
    assert Recipe(model="tiny", block=block, **length).updates_or_default == updates
