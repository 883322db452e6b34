"""What the tables of a page say, in sentences."""

from collections.abc import Mapping, Sequence

from experiments.reporting.formats import Table
from experiments.reporting.measures import Measure
from experiments.reporting.needles import Line
from experiments.reporting.records import Key
from experiments.reporting.statistics import Comparison, Estimate


def in_words(found: Mapping[Key, Comparison], measure: Measure) -> str:
    """Where learned norm helps and where it does not, a sentence for each."""
    ours = {key: comparison for key, comparison in found.items() if key.pooler == "learned_norm"}
    if not ours:
        return ""
    sentences, (ahead, behind) = [], measure.ahead
    for method in sorted({key.method for key in ours}):
        mine = {key: comparison for key, comparison in ours.items() if key.method == method}
        not_ahead = [_where(key) for key, c in mine.items() if measure.sign * c.difference.mean <= 0]
        better, worse = (
            [_where(key) for key, c in mine.items() if _is_sure(c, sign)] for sign in (measure.sign, -measure.sign)
        )
        text = f"`{method}`: {measure.average} {ahead} attention pooling in "
        text += f"{len(mine) - len(not_ahead)} of {len(mine)} places. "
        text += f"It does not help on {', '.join(not_ahead)}. " if not_ahead else ""
        text += f"After correction the difference is {ahead} zero in {len(better)}{_listed(better)}"
        sentences.append(f"{text} and {behind} zero in {len(worse)}{_listed(worse)}.")
    return "\n\n".join(sentences)


def _where(key: Key) -> str:
    return f"{key.task} with {key.encoder}"


def _is_sure(comparison: Comparison, sign: int) -> bool:
    return comparison.corrected is not None and comparison.corrected < 0.05 and comparison.difference.mean * sign > 0


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def needles_in_words(lines: Sequence[Line], measure: Measure) -> str:
    """Where learned exponents are close to the best fixed one, for every way to learn them."""
    score, extreme = measure.label, measure.extreme
    ways = {way: [line for line in lines if line.way == way] for way in dict.fromkeys(line.way for line in lines)}
    return (
        f"The best fixed p has the {extreme} mean validation {score}, or the lowest validation loss, that of a run "
        "being the lowest of all its validations. The learned p is that of the tested parameters, which are those of "
        f"the {extreme} validation {score} of a run; the last column has it at the end of training.\n\n"
        + "\n".join(f"- {_close(way, own, score)}" for way, own in ways.items())
        + _why_not(next(iter(ways.values())))
    )


def _close(way: str, lines: Sequence[Line], score: str) -> str:
    """Where the exponents that were learned in one way are close to the best fixed ones."""
    close = {
        score: [str(line.signals) for line in lines if line.is_close(line.best)],
        "loss": [str(line.signals) for line in lines if line.is_close(line.lowest)],
    }
    found = [f"{len(signals)} by {which}{_listed(signals)}" for which, signals in close.items()]
    apart = [str(line.signals) for line in lines if _apart(line.best_score, line.learned_score)]
    return (
        f"Learned from {way} as fast as the rest, p is within 25 % of the best fixed p for {', for '.join(found)} of "
        f"{len(lines)} values of k. The intervals of the test {score} at the best fixed p by {score} and at the "
        f"learned p are apart for {len(apart)}{_listed(apart)}."
    )


def _why_not(lines: Sequence[Line]) -> str:
    """Why the training texts teach another exponent than the best fixed one."""
    below = [str(line.signals) for line in lines if line.fitted < line.lowest]
    if not below:
        return ""
    return (
        "\n\nAt the end of training, the training loss is lowest at a smaller fixed exponent than the validation loss "
        f"for {len(below)} of {len(lines)} values of k{_listed(below)}. What a larger exponent gains, it gains on "
        "texts that were not trained on, as regularisation does, and no gradient of the training loss shows that."
    )


def _apart(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals do not overlap; a single run has none."""
    if one.half is None or other.half is None:
        return False
    return abs(one.mean - other.mean) > one.half + other.half


def baseline_in_words(table: Table, measure: Measure) -> str:
    """Where the neural row is ahead of the baseline and where it is not."""
    gains = {str(row[0]): measure.sign * row[-1] for row in table.rows if isinstance(row[-1], float)}
    ahead, behind = [[task for task in gains if (gains[task] > 0) == side] for side in (True, False)]
    text = f"The neural row is ahead of the {table.header[1]} baseline on {len(ahead)} of {len(gains)} tasks"
    text += _listed(ahead)
    return f"{text}, behind or equal on {', '.join(behind)}." if behind else f"{text}."
