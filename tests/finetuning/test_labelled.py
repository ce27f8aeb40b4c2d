"""Tables of labelled sentences: GLUE's formats, one's own, and everything that can be wrong with them."""

from __future__ import annotations

import lzma

import pytest

from evergraft.errors import EvergraftError
from evergraft.finetuning.labelled import examples_identity, load_task


def write(path, text, *, compress=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode()) if compress else text.encode())
    return path


# As the benchmark distributes them: header or none, byte-order mark or none, an unbalanced quote that quotes nothing.
GLUE = {
    "sst2": ("sentence\tlabel\nfine \t1\na \"bore\t0\n", (["fine ", 'a "bore'], None, [1, 0])),
    "cola": ("gj04\t1\t\tIt runs.\nbc01\t0\t*\tRuns it the.", (["It runs.", "Runs it the."], None, [1, 0])),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA b .\tB a .\n",
        (["A b ."], ["B a ."], [1]),
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n1\tC.\tD.\tentailment\n",
        (["A.", "C."], ["B.", "D."], [1, 0]),
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tg\tf\ty\t1\tn\tn\tA plane.\tAn air plane.\t4.250\n",
        (["A plane."], ["An air plane."], [4.25]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GLUE)
@pytest.mark.parametrize("compress", [False, True])
def test_glue_formats(tmp_path, name, compress):
    text, expected = GLUE[name]
    suffix = ".tsv.xz" if compress else ".tsv"
    folder = tmp_path / name if compress else tmp_path
    for part in ("train", "dev"):
        write(folder / f"{part}{suffix}", text, compress=compress)
    task, train, dev = load_task(name, tmp_path)
    assert tuple(train) == expected
    assert dev == train
    assert task.outputs == (1 if name == "stsb" else 2)


def rows(count, label):
    return "sentence\tlabel\n" + "".join(f"Sentence {n}.\t{label(n)}\n" for n in range(count))


def test_own_table_of_classes_holds_a_tenth_out(tmp_path):
    path = write(tmp_path / "mine.tsv", rows(50, lambda n: "odd" if n % 2 else "even"))
    task, train, dev = load_task(str(path))
    assert task.labels == ("even", "odd")
    assert task.metrics == ("accuracy", "macro_f1")
    assert (len(train.labels), len(dev.labels)) == (45, 5)
    assert not set(train.first) & set(dev.first)
    assert load_task(str(path))[2] == dev


def test_own_table_of_scores_and_of_whole_numbers(tmp_path):
    scores = write(tmp_path / "scores.tsv", rows(30, lambda n: n / 4))
    assert load_task(str(scores))[0].labels is None
    stars = write(tmp_path / "stars.tsv", rows(30, lambda n: n % 5))
    assert load_task(str(stars))[0].labels == ("0", "1", "2", "3", "4")


def test_blanks_around_a_label_are_none_of_it(tmp_path):
    path = write(tmp_path / "mine.tsv", rows(50, lambda n: "odd " if n % 2 else "even" + " " * (n % 4)))
    assert load_task(str(path))[0].labels == ("even", "odd")


def test_examples_are_known_by_their_hash(tmp_path):
    made = [load_task(str(write(tmp_path / f"{n}.tsv", rows(50, lambda i, n=n: i % n))))[1:] for n in (2, 3, 2)]
    assert examples_identity(*made[0]) == examples_identity(*made[2]) != examples_identity(*made[1])


def test_own_pair_with_its_own_validation(tmp_path):
    text = "sentence1\tsentence2\tlabel\nA.\tB.\tyes\nC.\tD.\tno\n"
    path, other = write(tmp_path / "a.tsv", text), write(tmp_path / "b.tsv", text)
    _, train, dev = load_task(str(path), validation=other)
    assert train == dev == (["A.", "C."], ["B.", "D."], [1, 0])


BAD = [
    ("sst3", {}, None, "`task` must be sst2, mrpc, rte, cola, stsb, or a table such as FILE.tsv; got sst3"),
    ("sst2", {}, None, "`task` sst2 needs `data`"),
    ("sst2", {"data": "."}, None, "holds neither train.tsv nor sst2/train.tsv"),
    ("sst2", {"data": ".", "validation": "x.tsv"}, None, "sst2 is validated on its dev.tsv"),
    ("mine.tsv", {"data": "."}, "", "`data` is for a named task"),
    ("missing.tsv", {}, None, "missing.tsv does not exist; expected a tab-separated table"),
    ("mine.tsv", {}, "", "holds no example"),
    ("mine.tsv", {}, "sentence\tlabel\n", "holds no example"),
    ("mine.tsv", {}, "sentence\tlabel\nA.\t1\nB.\n", "line 3: expected 2 tab-separated fields; got 1"),
    ("mine.tsv", {}, "text\tlabel\nA.\t1\n", "has no column sentence; its first line must name sentence and label"),
    ("mine.tsv", {}, "sentence1\tlabel\nA.\t1\n", "has no column sentence2"),
    ("mine.tsv", {}, rows(30, lambda n: "same"), "every example is labelled 'same'; expected two classes or more"),
    ("mine.tsv", {}, "sentence\tlabel\tlabel\nA.\t1\t2\n", "has two columns 'label'; keep one of them"),
    ("mine.tsv", {}, rows(30, lambda n: "yes" if n else " "), "an example has no label; give it one"),
    ("mine.tsv", {}, rows(5, lambda n: n % 2), "holds 5 examples, too few to hold any out; give another table"),
    ("mine.tsv", {"validation": "none.tsv"}, rows(30, lambda n: n % 2), "none.tsv does not exist"),
    ("mine.tsv", {"validation": "other.tsv"}, rows(30, lambda n: n % 2), "'maybe' is no label of mine.tsv; expected"),
    ("mine.tsv", {"validation": "other.tsv"}, rows(30, lambda n: n / 4), "'maybe' is no score"),
    ("mine.tsv", {"validation": "pairs.tsv"}, rows(30, lambda n: n % 2), "pairs.tsv has no column 'sentence'"),
    ("torn.tsv.xz", {}, None, "torn.tsv.xz is torn or not a .xz file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "text", "sentence"), BAD, ids=[case[3] for case in BAD])
def test_bad_tables(tmp_path, monkeypatch, name, options, text, sentence):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other.tsv", "sentence\tlabel\nA.\tmaybe\n")
    write(tmp_path / "pairs.tsv", "sentence1\tsentence2\tlabel\nA.\tB.\t1\n")
    (tmp_path / "torn.tsv.xz").write_bytes(lzma.compress(rows(30, lambda n: n % 2).encode())[:60])
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(EvergraftError) as refused:
        load_task(name, **{key: tmp_path / value for key, value in options.items()})
    assert sentence in str(refused.value)


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "mine.tsv").write_bytes(b"sentence\tlabel\ncaf\xe9\t1\n")
    with pytest.raises(EvergraftError, match="is not UTF-8"):
        load_task(str(tmp_path / "mine.tsv"))
