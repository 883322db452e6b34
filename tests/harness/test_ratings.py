"""Ratings by three tiers: files, which reviews are read, no leak, prediction of pairs, the baseline, what weighs."""

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import re
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import analyse, baseline, explain, export, predict, train
from experiments.analyses.tiers import Tiers, TiersOptions
from experiments.base.errors import DataError, UsageError
from experiments.baselines import ratings as of_ratings
from experiments.data.rating_batches import RatingOptions
from experiments.data.rating_files import Review, read
from experiments.data.rating_task import Rating, RatingTask
from experiments.objectives.rating import Errors
from experiments.run import build
from experiments.run.config import parse_args
from experiments.run.trained import Trained, load_run
from experiments.tasks import TASKS
from experiments.tasks.ratings import LEVELS, PlantedOptions, PlantedRatings

SMALL = RatingOptions(batch_size=8, most_reviews=3, most_sentences=2, longest=4, shortest=1, min_count=1)
EACH_TASK = pytest.mark.parametrize("name", sorted(name for name in TASKS if issubclass(TASKS[name], RatingTask)))


def said(place: int) -> str:
    """The text of a review: a word of its own in each of two sentences, and words of all."""
    return f"own{place} the good. the other{place} bad"


def reviews(users: int = 12, items: int = 9, share: float = 0.4) -> list[Review]:
    """Some of all pairs, each with a review; the first user and the first item have one."""
    random, found = np.random.default_rng(0), []
    for user in range(users):
        for item in range(items):
            if (user == 0) == (item == 0) and random.random() < (share if user else 1):
                stars = float(random.integers(1, 6))
                found.append(Review(f"u{user}", f"i{item}", stars, said(len(found)), float(random.integers(99))))
    return found


def task_of(given: list[Review], options: RatingOptions = SMALL) -> RatingTask:
    task = RatingTask.__new__(RatingTask)
    RatingTask.__init__(task, options, [Rating(one, options.split_of(one.user, one.item)) for one in given])
    return task


def model_of(task: RatingTask, *line: str):
    """A model with random parameters, whose ids and numbers are not 0."""
    network = "--task planted_ratings --encoder bag --pooler attention --encode.features 8"
    model, _ = build.objective(parse_args([*network.split(), *line]), task.codec.sizes)
    for table in model.biases.values():
        table.embedding[...] = jax.random.normal(jax.random.key(1), table.embedding.shape)
    return model


def put(batch):
    """A batch as a model gets it."""
    return jax.tree.map(jnp.asarray, batch)


def batches_of(task: RatingTask):
    """The batches of an epoch and of both held-out splits, each with the ratings in it."""
    options = task.codec.options
    for step in range(task.steps_per_epoch):
        yield "train", task.train_rows(3, step), task.train_batch(3, step)
    for split in ("validation", "test"):
        for at, batch in enumerate(task.batches(split)):
            yield split, range(at * options.batch_size, at * options.batch_size + int(batch.weights.sum())), batch


def texts_of(task: RatingTask, tokens) -> set[str]:
    """The words of a review's own that some reviews hold."""
    words = {task.codec.vocabulary.words[number - 2] for number in tokens[tokens > 1]}
    return {word for word in words if word.startswith("own")}


@pytest.mark.parametrize("leak", [False, True])
def test_the_reviews_of_a_row_are_those_of_others_in_training(leak):
    given = reviews()
    options = dataclasses.replace(SMALL, leak_own_review=leak)
    task, own = task_of(given, options), {one: f"own{place}" for place, one in enumerate(given)}
    of_split = {name: [one for one in given if SMALL.split_of(one.user, one.item) == name] for name in task.splits}
    train, seen = of_split["train"], 0
    for split, rows, batch in batches_of(task):
        assert not batch.user_mask[len(rows) :].any()
        for at, row in enumerate(rows):
            pair = of_split[split][row]
            by_user = [one for one in train if one.user == pair.user and one.item != pair.item]
            of_item = [one for one in train if one.item == pair.item and one.user != pair.user]
            for found, others in ((batch.user_tokens[at], by_user), (batch.item_tokens[at], of_item)):
                times = sorted((one.time for one in others), reverse=True)[:3]
                texts = texts_of(task, found)
                if leak:
                    assert texts == ({own[pair]} if pair in train else set()), (
                        "held-out words are not in the vocabulary"
                    )
                    assert (found[0] > 0).any()
                    continue
                assert texts <= {own[one] for one in others}
                assert sorted((one.time for one in others if own[one] in texts), reverse=True) == times
                seen += len(texts)
            assert batch.targets[at] == pair.rating
    assert leak or seen > 100


def swapped(given: list[Review], place: int) -> list[Review]:
    """The reviews, the words of one in another order: the vocabulary stays as it is."""
    text = " ".join(reversed(re.findall(r"\w+", given[place].text)))
    return [*given[:place], given[place]._replace(text=text), *given[place + 1 :]]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("leak", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_own_review_moves_no_bit_of_its_rating_unless_it_is_leaked(split, leak):
    given = reviews()
    options = dataclasses.replace(SMALL, leak_own_review=leak)
    place = next(at for at, one in enumerate(given) if one.user != "u0" and SMALL.split_of(one.user, one.item) == split)
    before, after = task_of(given, options), task_of(swapped(given, place), options)
    assert before.codec.vocabulary.words == after.codec.vocabulary.words
    model = model_of(before, "--encoder", "gru", "--encode.embedding", "8")
    forward = jax.jit(lambda batch, key: model(batch, None if key is None else nnx.Rngs(dropout=key))["rating"])
    own_rows = other_rows = 0
    for (name, rows, one), (_, _, two) in zip(batches_of(before), batches_of(after), strict=True):
        key = jax.random.key(0) if name == "train" else None
        differs = np.asarray(forward(put(one), key)) != np.asarray(forward(put(two), key))
        pairs = [one for one in given if SMALL.split_of(one.user, one.item) == name]
        for at, row in enumerate(rows):
            is_own = pairs[row] == given[place]
            own_rows, other_rows = own_rows + (is_own and differs[at]), other_rows + (not is_own and differs[at])
    assert own_rows == leak
    assert bool(other_rows) == (split == "train" and not leak), "a review of the training split is read for others"


def test_reviews_have_no_order_and_padding_no_weight():
    task = task_of(reviews())
    model = model_of(task)
    batch = put(next(task.batches("test")))
    order = np.random.default_rng(1).permutation(3)
    other = batch._replace(
        **{name: getattr(batch, name)[:, order] for name in ("user_tokens", "user_mask", "item_tokens", "item_mask")}
    )
    expected = np.asarray(model(batch)["rating"])
    np.testing.assert_allclose(model(other)["rating"], expected, rtol=1e-5)
    garbage = batch._replace(user_tokens=jnp.where(batch.user_mask, batch.user_tokens, 5))
    np.testing.assert_array_equal(model(garbage)["rating"], expected)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("pooler", ["attention", "learned_norm", "max"])
def test_names_that_were_not_trained_have_neither_texts_nor_vectors_nor_numbers(pooler):
    task = task_of(reviews())
    model = model_of(task, "--pooler", pooler)
    (batch,) = task.codec.encode([("nobody", "nothing"), ("nobody", "i3"), ("u3", "nothing")])
    found = np.asarray(model(put(batch))["rating"])
    sizes, bias = task.codec.sizes, model.head.linear.bias[0]
    user, item = (
        model.biases[side].embedding[task.codec.ids("u3", "i3")[at]][0] for at, side in enumerate(("user", "item"))
    )
    expected = [sizes["mean"] + sizes["scale"] * (bias + number) for number in (0, item, user)]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-5)


def test_a_pair_rated_twice_is_in_one_split_and_reads_neither_of_its_reviews():
    given = [*reviews(), *[one._replace(rating=3.0, text=f"own9{at}") for at, one in enumerate(reviews())]]
    task = task_of(given)
    for _, rows, batch in batches_of(task):
        for at in range(len(rows)):
            codec = task.codec
            user, item = codec.users[batch.users[at] - 1], codec.items[batch.items[at] - 1]
            own = {one.text.split()[0] for one in given if (one.user, one.item) == (user, item)}
            read = texts_of(task, batch.user_tokens[at]) | texts_of(task, batch.item_tokens[at])
            assert batch.users[at] == 0 or batch.items[at] == 0 or not own & read
    stored = RatingTask.codec_of(SMALL, json.loads(json.dumps(task.codec.to_json())))
    pairs = [(one.user, one.item) for one in given]
    for one, two in zip(task.codec.encode(pairs), stored.encode(pairs), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, two)


@EACH_TASK
def test_batches_are_functions_of_seed_and_step_and_hold_every_rating_once(name):
    given = reviews()
    kind = TASKS[name]
    options = kind.Options(**{field.name: getattr(SMALL, field.name) for field in dataclasses.fields(SMALL)})
    task = kind.__new__(kind)
    RatingTask.__init__(task, options, [Rating(one, options.split_of(one.user, one.item)) for one in given])
    for step in range(2 * task.steps_per_epoch):
        jax.tree.map(np.testing.assert_array_equal, task.train_batch(3, step), task.train_batch(3, step))
    train = len(task.splits["train"].ids)
    seen = [task.train_rows(3, step) for step in range(task.steps_per_epoch)]
    assert sorted(row for rows in seen for row in rows) == [*range(train)]
    assert seen[0] != task.train_rows(4, 0)
    counts = [sum(batch.weights.sum() for batch in task.batches(split)) for split in task.splits]
    assert sum(counts) == len(given)
    (*_, last) = task.codec.encode([("u1", "i1")] * 9)
    assert last.weights.tolist() == [1] + [0] * 7


def test_folds_are_ten_disjoint_test_splits():
    pairs = [(one.user, one.item) for one in reviews(40, 40)]
    found = [[RatingOptions(fold=fold).split_of(*pair) for pair in pairs] for fold in range(10)]
    assert all([splits[at] for splits in found].count("test") == 1 for at in range(len(pairs)))


def test_sentences_that_do_not_fit_are_left_out():
    codec = task_of(reviews()).codec
    known = codec.vocabulary.encode(["the", "good"])
    rows = codec.rows_of([["the"], ["good"] * 6, ["the"]])
    assert rows.tolist() == [[known[0], 0, 0, 0], [known[1]] * 4]
    assert not codec.rows_of([]).any()


# Files.

ROWS = [
    {
        "reviewerID": f"u{n % 8}",
        "asin": f"i{n % 9}",
        "overall": n % 5 + 1,
        "summary": "a title",
        "reviewText": f"it is {n}.\nfine",
    }
    for n in range(72)
]
EXPECTED = [(f"u{n % 8}", f"i{n % 9}", float(n % 5 + 1), f"a title\nit is {n}.\nfine", 0.0) for n in range(72)]


def as_json(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows) -> bytes:
    quoted = ([f'"{value}"' for value in row.values()] for row in rows)
    return "\n".join([",".join(rows[0]), *map(",".join, quoted)]).encode()


def as_zip(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr("readme.md", "about")
    return packed.getvalue()


RENAMED = [
    {"user_id": row["reviewerID"], "parent_asin": row["asin"], "rating": row["overall"], "title": "a title"}
    | {"text": row["reviewText"]}
    for row in ROWS
]  # fmt: skip
FORMS = {
    "reviews_Toys_5.json.gz": gzip.compress(as_json(ROWS)),
    "a.json": as_json(ROWS),
    "a.jsonl.xz": lzma.compress(as_json(RENAMED)),
    "a.csv": as_csv(ROWS),
    "a.csv.bz2": bz2.compress(as_csv(RENAMED)),
    "a.csv.zip": as_zip("folder/b.csv", as_csv(ROWS)),
    "a.zip": as_zip("b.json", as_json(ROWS)),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name])
    assert [*map(tuple, read(tmp_path / name))] == EXPECTED


def test_times_missing_texts_and_rows_that_stand_twice(tmp_path):
    rows = [{**ROWS[0], "unixReviewTime": 7}, {"reviewerID": "x", "asin": 5, "overall": "4", "unixReviewTime": None}]
    (tmp_path / "a.json").write_bytes(as_json([*rows, *rows]))
    found = [*read(tmp_path / "a.json")]
    assert found[0].time == 7
    assert found[1] == found[3] == ("x", "5", 4.0, "", 0.0)
    options = TASKS["amazon_ratings"].Options(path=tmp_path / "a.json")
    assert len([*TASKS["amazon_ratings"].examples(options)]) == 2


def changed(**values) -> bytes:
    return as_json([*ROWS, {**ROWS[0], **values}])


BAD = {
    "cut short": ("a.json.gz", FORMS["reviews_Toys_5.json.gz"][:-9], "a.json.gz cannot be read"),
    "a page": ("a.json.gz", b"<html>", "a.json.gz begins with b'<html>', expected a file of gzip"),
    "another form": ("a.pkl", b"\x80\x04\x95", "a.pkl ends in none of"),
    "no table": ("a.zip", as_zip("b.txt", b"x"), "a.zip has 0 files of"),
    "nothing": ("a.zip", b"", "a.zip begins with b''"),
    "columns": ("a.csv", b"user,text\na,b\n", "a.csv has no column for the item (asin, item_id, item, parent_asin)"),
    "no text": ("a.csv", b"user,item,rating\na,b,1\n", "a.csv has no column for the text"),
    "one name twice": ("a.csv", b"user,item,item,rating,text\na,b,b,1,x\n", "found 2 columns 'item', expected one"),
    "a row too long": ("a.csv", as_csv(ROWS) + b"\nx,y\n", "found 2 columns, expected 5"),
    "no UTF-8": ("a.csv", as_csv(ROWS) + b"\nu\xff", "expected text in UTF-8"),
    "UTF-16": ("a.csv", as_csv(ROWS).decode().encode("utf-16"), "it holds zero bytes"),
    "no JSON": ("a.json", as_json(ROWS) + b"{'a': 1}\n", "row 73: expected one JSON object a line"),
    "no number": ("a.json", changed(overall="five"), "row 73: column 'overall' holds 'five', expected a number"),
    "not finite": ("a.json", changed(overall=float("nan")), "holds 'nan', expected a number"),
    "true": ("a.json", changed(overall=True), "holds 'True', expected a number"),
    "no user": ("a.json", changed(reviewerID=" "), "row 73: the user is missing"),
    "a list": ("a.json", changed(reviewText=["a"]), "holds a JSON list"),
    "half of a character": ("a.json", changed(reviewText="\ud800"), "half of a character"),
    "a time that is none": (
        "a.json",
        as_json([{**ROWS[0], "time": "May"}]),
        "column 'time' holds 'May', expected a number",
    ),
    "empty": ("a.csv", b"", "a.csv has no column for the user"),
    "no rows": ("a.csv", as_csv(ROWS).splitlines()[0], "the train split has no ratings"),
    "few rows": ("a.json", as_json(ROWS[:1]), "split has no ratings"),
    "one rating": (
        "a.json",
        as_json([{**row, "overall": 3} for row in ROWS]),
        "every rating of the train split is 3.0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(case, tmp_path, one_line, monkeypatch):
    name, content, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    one_line(train.main, ["--task", "amazon_ratings", "--path", name, "--out", "run"], 65, message)
    assert not Path("run").exists()


def test_a_category_is_looked_for_by_its_name(tmp_path, one_line):
    (tmp_path / "reviews_Toys_5.json.gz").write_bytes(FORMS["reviews_Toys_5.json.gz"])
    kind = TASKS["amazon_ratings"]
    assert len([*kind.reviews(kind.Options(category="Toys", archives=tmp_path))]) == 72
    (tmp_path / "Musical_instruments_reviews.csv.zip").write_bytes(FORMS["a.csv.zip"])
    assert len([*kind.reviews(kind.Options(archives=tmp_path))]) == 72
    line = ["--task", "amazon_ratings", "--data.category", "Books", "--archives", str(tmp_path)]
    one_line(train.main, line, 65, "has no reviews_Books_5.json.gz")


# The planted rule.


def test_planted_ratings_follow_from_words_in_the_other_reviews():
    options = PlantedOptions(number_of_users=30, number_of_items=10, per_user=6)
    given = [*PlantedRatings.reviews(options)]
    assert given[:6] == [*PlantedRatings.reviews(dataclasses.replace(options, number_of_users=1))]
    found = 0
    for one in given:
        by_user = " ".join(two.text for two in given if two.user == one.user and two.item != one.item)
        of_item = " ".join(two.text for two in given if two.item == one.item and two.user != one.user)
        (aspect,) = set(re.findall(r"care(\d)x", by_user))
        levels = set(re.findall(rf"aspect{aspect}level(\d)x", of_item))
        if of_item:
            (level,) = levels
            assert one.rating == 3 + 2 * LEVELS[int(level)]
            found += 1
    assert found > 170


# The numbers.


def test_errors_by_hand_and_in_parts():
    predictions, targets, weights = np.array([1.0, 2, 5, 9]), np.array([2.0, 2, 3, 0]), np.array([1.0, 1, 1, 0])
    whole = Errors.of(predictions, targets, weights, near=2.5).compute()
    # Errors 1, 0, 2; the mean rating is 7/3 and the squares around it sum to 2/3.
    assert whole["mse"] == pytest.approx(5 / 3)
    assert whole["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert whole["mae"] == pytest.approx(1)
    assert whole["r2"] == pytest.approx(1 - 5 / (2 / 3))
    parts = [Errors.of(predictions[part], targets[part], weights[part], 2.5) for part in (slice(1), slice(1, 4))]
    assert (parts[0] + parts[1]).compute() == pytest.approx(whole)
    assert Errors.of(np.ones(2), np.ones(2), np.ones(2), 0.0).compute()["r2"] == 0


def test_the_baseline_is_ridge_regression(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    path = tmp_path / "a.json"
    given = reviews(20, 15)
    path.write_bytes(as_json([dict(one._asdict()) for one in given]))
    kind = TASKS["amazon_ratings"]
    facts = of_ratings.rating(kind, kind.Options(path=path))
    splits = {name: [] for name in ("train", "validation", "test")}
    for one in given:
        splits[SMALL.split_of(one.user, one.item)].append(one)
    names = sorted({name for one in splits["train"] for name in one[:2]})
    inputs = {
        split: np.array([[float(name in one[:2]) for name in names] for one in some]) for split, some in splits.items()
    }
    truth = {split: np.array([one.rating for one in some]) for split, some in splits.items()}
    mean = truth["train"].mean()
    model = linear_model.Ridge(alpha=facts["ridge"], fit_intercept=False).fit(inputs["train"], truth["train"] - mean)
    for split in ("validation", "test"):
        error = mean + model.predict(inputs[split]) - truth[split]
        assert facts[split]["mse"] == pytest.approx(np.mean(error**2))
        assert facts[split]["mae"] == pytest.approx(np.abs(error).mean())
        alone = facts["beside"]["the mean of the training split"][split]
        assert alone["mse"] == pytest.approx(np.mean((mean - truth[split]) ** 2))


def test_baselines_refuse_data_of_another_kind(one_line):
    one_line(baseline.main, ["--task", "planted_ratings", "--objective", "regress"], 2, "needs a task of texts")
    one_line(baseline.main, ["--objective", "rating"], 2, "needs a task of ratings")


def test_objectives_and_encoders_that_do_not_fit(one_line):
    line = ["--task", "planted_ratings", "--data.number-of-users", "20"]
    one_line(
        train.main, [*line, "--objective", "language_model"], 2, "needs words, which the task planted_ratings has not"
    )
    one_line(train.main, ["--objective", "rating", "--encoder", "bag"], 2, "needs review_words and users and items")
    one_line(train.main, [*line, "--encoder", "han"], 2, "choose another one for the task planted_ratings")
    one_line(train.main, [*line, "--encoder", "bag", "--head.word-pooler", "meen"], 2, "unknown pooler 'meen'")
    one_line(train.main, [*line, "--encoder", "bag", "--head.no-texts", "--head.ids", "0"], 2, "nothing to multiply")


# A trained model.

OPTIONS = """
--task planted_ratings --encoder bag --encode.features 8 --data.number-of-users 40 --data.number-of-items 12
--data.per-user 6 --data.most-reviews 2 --data.longest 6 --data.batch-size 32 --epochs 1 --evaluations 1
"""
LINE = OPTIONS.split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ratings") / "run"
    tiers = ["--head.word-pooler", "max", "--head.review-pooler", "mean"]
    assert train.main([*LINE, *tiers, "--pooler", "learned_norm", "--pool.hidden", "4", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_p_by_tier_is_in_the_record(run):
    summary = json.loads((run / "summary.json").read_text())
    logged = {name: value for name, value in summary["validation"].items() if name.startswith("p_")}
    assert logged.keys() == {"p_user_sentences", "p_item_sentences"}
    assert [*logged.values()] == pytest.approx(summary["p"])
    assert summary["data"]["train"]["ratings"] == load_run(run).codec.sizes["ratings"]


PAIRS = [("u1", "i2"), ("u7", "nothing"), ("nobody", "nothing")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "reviewerID,asin\nu1,i2\nu7,nothing\nnobody,nothing\n"),
        ("a.tsv", "item\tuser\ni2\tu1\nnothing\tu7\nnothing\tnobody\n"),
        (
            "a.jsonl",
            '{"user": "u1", "item": "i2"}\n{"user": "u7", "item": "nothing"}\n{"user": null, "item": "nothing"}\n',
        ),
        ("a", '{"user": "u1", "item": "i2"}\n{"user": "u7", "item": "nothing"}\n{"user": "x", "item": 5}\n'),
    ],
)
def test_pairs_are_predicted(name, content, run, tmp_path, capsys):
    (tmp_path / name).write_text(content)
    assert predict.main([str(run), str(tmp_path / name), "--vectors", str(tmp_path / "v.npy")]) == 0
    found = [json.loads(line)["rating"] for line in capsys.readouterr().out.splitlines()]
    assert found == [record["rating"] for record in load_run(run).predict(PAIRS)]
    assert np.load(tmp_path / "v.npy").shape == (3, 8 + 16)


def test_pairs_that_cannot_be_predicted(run, tmp_path, one_line):
    for content, message in {
        "user,text\na,b\n": "a.csv has no column for the item (asin, item_id, item, parent_asin): it has user, text",
        "user,item\na,b,c\n": "found 3 columns, expected 2",
    }.items():
        (tmp_path / "a.csv").write_text(content)
        one_line(predict.main, [str(run), str(tmp_path / "a.csv")], 65, message)
    one_line(predict.main, [str(run), str(tmp_path / "a.csv"), "--column", "user"], 2, "leave out --column")
    (tmp_path / "a.txt").write_text("u1 i2\n")
    one_line(predict.main, [str(run), str(tmp_path / "a.txt")], 65, "expected one JSON object a line")


def test_commands_for_texts_refuse_pairs(run, tmp_path, one_line):
    one_line(explain.main, [str(run), "a text"], 2, "the task planted_ratings has no texts to explain")
    one_line(export.main, [str(run), "--out", str(tmp_path / "out")], 2, "the task planted_ratings has no texts")
    for analysis in ("gradient", "leave_one_out", "communities"):
        one_line(analyse.main, [str(run), "--analysis", analysis], 2, "needs a task whose examples are texts")
    line = [str(run), "--analysis", "similarity", "--ask.pairs", str(tmp_path / "a.csv")]
    one_line(analyse.main, line, 2, "needs a task whose examples are texts")


@pytest.mark.slow
def test_what_weighs(run, capsys):
    assert analyse.main([str(run), "--analysis", "tiers", "--texts", "20", "--ask.most", "2", "--ask.least", "3"]) == 0
    out = capsys.readouterr().out
    assert "p of user sentences" in out
    findings = json.loads((run / "analyses" / "tiers-test.json").read_text())
    assert {(row["side"], row["tier"]) for row in findings["table"]} == {
        (side, tier) for side in ("user", "item") for tier in ("reviews", "sentences", "words")
    }
    trained = load_run(run)
    for row in findings["examples"]:
        for side in ("user", "item"):
            read = row[side + "_reviews"]
            assert sum(one["share"] for one in read) == pytest.approx(1 if read else 0, rel=1e-5)
            assert [one["share"] for one in read] == sorted((one["share"] for one in read), reverse=True)
            assert all(one[side] == row[side] for one in read)
            other = {"user": "item", "item": "user"}[side]
            assert row[other] not in [one[other] for one in read], "the own review is not read"
            for one in read:
                assert sum(sentence["share"] for sentence in one["sentences"]) == pytest.approx(1, rel=1e-5)
                for sentence in one["sentences"]:
                    assert sum(share for _, share in sentence["words"]) == pytest.approx(1, rel=1e-5)
    predicted = [
        record["rating"] for record in trained.predict([(row["user"], row["item"]) for row in findings["examples"]])
    ]
    assert [row["predicted"] for row in findings["examples"]] == pytest.approx(predicted, rel=1e-5)


def test_shares_of_a_mean_and_of_attention_by_hand():
    """With the mean, the share of a unit is by the size of its states; with attention it is the attention times it."""
    task = task_of(reviews())
    model = model_of(
        task, "--pooler", "power_mean", "--pool.p-init", "1", "--pool.exponent", "fixed", "--pool.scale-limit", "abs"
    )
    config = parse_args(["--task", "planted_ratings", "--encoder", "bag", "--pooler", "power_mean"])
    trained = Trained(config, model, task.codec)
    (example,) = [one for one in task_examples(task) if one.split == "test"][:1]
    ((found, *_),) = [Tiers(TiersOptions())(trained, [example]).examples]
    (batch,) = task.codec.encode([(example.review.user, example.review.item)])
    tower = model.towers["user"]
    states, mask = tower.sentences.states(jnp.asarray(batch.user_tokens))
    size = jnp.where(mask[..., None], jnp.abs(states), 0)
    expected = np.asarray((size / jnp.maximum(size.sum(axis=1, keepdims=True), 1e-9)).mean(axis=-1)).reshape(8, 3, 2, 4)
    names = {one["item"]: one for one in found["user_reviews"]}
    for at, place in enumerate(task.codec.library.others(*task.codec.ids(*example.review[:2]), 3)[0]):
        one = names[task.codec.items[task.codec.library.items[place] - 1]]
        for line, sentence in enumerate(one["sentences"]):
            shares = [share for _, share in sentence["words"]]
            np.testing.assert_allclose(shares, expected[0, at, line, : len(shares)], rtol=1e-4)


def task_examples(task: RatingTask) -> list[Rating]:
    return [Rating(one, SMALL.split_of(one.user, one.item)) for one in reviews()]


def test_the_analysis_needs_reviews(run):
    trained = load_run(run)
    for model in (
        trained._replace(objective=model_of(task_of(reviews()), "--head.no-texts")),
        trained._replace(codec=None),
    ):
        with pytest.raises(UsageError, match="reads their reviews"):
            Tiers(TiersOptions())(model, [])
    leaking = task_of(reviews(), dataclasses.replace(SMALL, leak_own_review=True))
    with pytest.raises(UsageError, match="the control reads the review of the rating itself"):
        Tiers(TiersOptions())(Trained(trained.config, model_of(leaking), leaking.codec), [])


def test_no_ratings_in_a_split():
    with pytest.raises(DataError, match="the validation split has no ratings"):
        task_of([one for one in reviews() if SMALL.split_of(one.user, one.item) != "validation"])


@pytest.mark.slow
def test_the_planted_rule_is_found(tmp_path):
    line = """--task planted_ratings --encoder cnn --encode.width 1 --encode.embedding 32
    --encode.features 32 --pooler max --encode.dropout 0 --encode.word-dropout 0 --head.dropout 0 --head.ids 0
    --data.most-reviews 3 --data.longest 6
    --optim.learning-rate 0.01 --optim.clip 100 --epochs 20 --evaluations 1"""
    assert train.main([*line.split(), "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["r2"] >= 0.9
