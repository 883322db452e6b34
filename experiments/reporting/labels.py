"""What rows are called in figures: names in words, no two of them alike."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from experiments.reporting.records import Key, Row

_WORDS = {
    "exponent=positive": "p above 0",
    "exponent=softplus": "p above 1",
    "exponent": "p by {}",
    "heads": "{} heads",
    "p_init": "p from {}",
    "p_multiplier": "p learns {} times faster",
    "per": "p per {}",
    "scale_limit": "{} limit",
    "score=none": "no attention",
    "sharpen=False": "plain attention",
}


def task_and_encoder(row: Row) -> tuple[str, str]:
    """Return what most figures give a panel or a mark of its own."""
    return row.key.task, row.key.encoder


def parts(options: str) -> dict[str, str]:
    """Return options by their dotted names.

    >>> parts("encode.widths=(3, 4), epochs=2")
    {'encode.widths': '(3, 4)', 'epochs': '2'}
    """
    found: dict[str, str] = {}
    for part in filter(None, options.split(", ")):
        name, equals, value = part.partition("=")
        if equals:
            found[name] = value
        else:  # a comma within a value
            found[next(reversed(found))] += f", {part}"
    return found


def in_words(options: Mapping[str, str]) -> str:
    """Return options as they are said.

    >>> in_words({"pool.p_init": "3.0", "pool.heads": "4", "pool.score": "none", "data.signals": "16"})
    'p from 3.0, 4 heads, no attention, signals 16'
    """
    return ", ".join(_said(path.rpartition(".")[2], value) for path, value in options.items())


def _said(name: str, value: str) -> str:
    words = _WORDS.get(f"{name}={value}") or _WORDS.get(name) or f"{name.replace('_', ' ')} {{}}"
    return words.format(value)


def without_exponent(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a pooler that are not those of its exponent."""
    return {path: value for path, value in options.items() if path not in ("pool.exponent", "pool.p_init")}


def method(row: Row) -> str:
    """Return the pooler of a row in words; an exponent that is not learned as a number."""
    options = parts(row.key.pool)
    name = row.key.pooler.replace("_", " ")
    if options.get("pool.exponent") == "fixed":
        options = without_exponent(options)
        name += f", p = {(row.finished or row.failed)[0].config.pool.p_init:g}"  # type: ignore[union-attr]
    return ", ".join(filter(None, [name, in_words(options)]))


def names(rows: Sequence[Row], place: Callable[[Row], object] = task_and_encoder) -> dict[Key, str]:
    """Return a name a row: its method, and the options that tell it from the others of its place."""
    groups: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        groups[place(row)].append(row)
    differ: set[str] = set()
    for group in groups.values():
        settings: list[set[tuple[str, str]]] = [set(parts(row.key.setting).items()) for row in group]
        differ |= {path for path, _ in set[tuple[str, str]]().union(*settings) - settings[0].intersection(*settings)}
    own = {row.key: {path: x for path, x in parts(row.key.setting).items() if path in differ} for row in rows}
    return {row.key: ", ".join(filter(None, [method(row), in_words(own[row.key])])) for row in rows}
