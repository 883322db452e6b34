"""What the tables of a page say, in sentences."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.reporting.formats import Table
from experiments.reporting.measures import Measure
from experiments.reporting.needles import Line
from experiments.reporting.records import LEARNED_NORMS, Key
from experiments.reporting.statistics import ALPHA, POWER, Comparison, Estimate, detectable, estimate


def in_words(found: Mapping[Key, Comparison], measure: Measure) -> str:
    """Where learned norms help, where they do not, and what the tests could have found: a paragraph a learned norm."""
    ours = {key: comparison for key, comparison in found.items() if key.pooler in LEARNED_NORMS}
    paragraphs = []
    for method in sorted({key.method for key in ours}):
        mine = {key: comparison for key, comparison in ours.items() if key.method == method}
        said = [_ahead(mine, measure), _equivalent(mine, measure), _power([*mine.values()], measure)]
        paragraphs.append(f"`{method}`: {' '.join(filter(None, said))}")
    return "\n\n".join(paragraphs)


def _ahead(mine: Mapping[Key, Comparison], measure: Measure) -> str:
    """On which side of attention pooling one pooler is, and where that is shown."""
    ahead, behind = measure.ahead
    not_ahead = [_where(key) for key, c in mine.items() if measure.sign * c.difference.mean <= 0]
    better, worse = (
        [_where(key) for key, c in mine.items() if c.differs and sign * c.difference.mean > 0]
        for sign in (measure.sign, -measure.sign)
    )
    text = f"{measure.average} {ahead} attention pooling in {len(mine) - len(not_ahead)} of {len(mine)} places. "
    text += f"It does not help on {', '.join(not_ahead)}. " if not_ahead else ""
    text += f"After correction the difference is {ahead} zero in {len(better)}{_listed(better)}"
    return f"{text} and {behind} zero in {len(worse)}{_listed(worse)}."


def _equivalent(mine: Mapping[Key, Comparison], measure: Measure) -> str:
    """Where one pooler is shown to be as good as attention pooling; nothing where no margin is agreed on."""
    if measure.margin is None:
        return ""
    within = [_where(key) for key, c in mine.items() if c.is_equivalent]
    neither = sum(not c.differs and not c.is_equivalent for c in mine.values())
    text = (
        f"Two one-sided tests (p < {ALPHA:g} after Holm's correction) show that the difference lies within half a "
        f"point in {len(within)} of {len(mine)} places{_listed(within)}; in {neither} it is neither shown to differ "
        "from zero nor to be equivalent."
    )
    average = estimate([comparison.difference.mean for comparison in mine.values()])
    if average.half is None:
        return text
    lies = "lies" if abs(average.mean) + average.half < measure.margin else "does not lie"
    return f"{text} The interval of the mean difference over the places {lies} within half a point."


def _power(mine: Sequence[Comparison], measure: Measure) -> str:
    """What the paired tests of one pooler could have found."""
    tested = [comparison for comparison in mine if comparison.p_value is not None]
    if not tested:
        return ""
    single, strictest = (
        _size(float(np.median([detectable(c.difference, level) for c in tested])), measure)
        for level in (ALPHA, tested[0].strictest)
    )
    return (
        f"The smallest difference that a paired test of so many runs would find with power {POWER:g} is {single} at "
        f"p < {ALPHA:g}, and {strictest} at the strictest level of Holm's correction (medians over places)."
    )


def _size(difference: float, measure: Measure) -> str:
    if not measure.is_share:
        return f"{difference:.{measure.digits}f}"
    return f"{100 * difference:.2f} points" if difference < 1 else "more than 100 points"


def _where(key: Key) -> str:
    return f"{key.task} with {key.encoder}"


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def needles_in_words(lines: Sequence[Line], measure: Measure) -> str:
    """Where learned exponents are close to the best fixed one, for every learned norm and every way to learn them."""
    score, extreme = measure.label, measure.extreme
    said = [
        f"The best fixed p has the {extreme} mean validation {score}, or the lowest validation loss, that of a run "
        "being the lowest of all its validations. The learned p is that of the tested parameters, which are those of "
        f"the {extreme} validation {score} of a run; the last column has it at the end of training."
    ]
    for pooler in dict.fromkeys(line.pooler for line in lines):
        mine = [line for line in lines if line.pooler == pooler]
        ways = {way: [line for line in mine if line.way == way] for way in dict.fromkeys(line.way for line in mine)}
        points = [f"- {_close(way, own, score)}" for way, own in ways.items()]
        said += [f"`{pooler}`:", "\n".join(points), _why_not(next(iter(ways.values())))]
    return "\n\n".join(filter(None, said))


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
        "At the end of training, the training loss is lowest at a smaller fixed exponent than the validation loss "
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
