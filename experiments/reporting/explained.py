"""Explained texts for a terminal, in colour or as columns, and for a browser. What texts and labels hold is escaped."""

import html
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.base.errors import in_short, printable
from experiments.data.trees import brackets
from experiments.run.explanation import ATTENTION, SHARE, Explained
from experiments.run.trained import Trained

BLUES = ((231, 16), (195, 16), (153, 16), (117, 16), (75, 16), (33, 231), (26, 231), (19, 231))
"""Background and text of the steps of the scale, from 0 to the largest weight of a text: one hue, ever darker."""
UNKNOWN_MARK = "?"
_NAMES = {ATTENTION: "attention v", SHARE: "share"}
_SECTIONS = {ATTENTION: "Attention v", SHARE: "Share in the pooled vector"}


def model_in_words(trained: Trained, p: np.ndarray | None) -> str:
    """Return what the model is, and its exponent."""
    config = trained.config
    model = f"{config.task}, {config.encoder}, {config.pooler}"
    if p is None:
        return f"{model}, no exponent"
    if len(p) == 1:
        return f"{model}, p = {p[0]:.3f}"
    return f"{model}, p from {p.min():.3f} to {p.max():.3f}, {p.mean():.3f} on average"


def prediction_in_words(found: Explained) -> str:
    """Return the prediction: names with their probabilities, or what else is predicted."""
    pairs = found.scores or [*found.record.items()]
    return ", ".join(f"{printable(name)} {_number(value)}" for name, value in pairs)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else in_short(value, most=80)


def columns(found: Explained) -> str:
    """Return a text as a line for every word with its numbers, below a line with the prediction."""
    lines = [f"prediction: {prediction_in_words(found)}"]
    shown = [_marked(found, at) for at in range(len(found.units))]
    width = max(map(len, shown), default=0)
    if shown:
        lines.append(" " * width + "".join(f"  {_NAMES.get(name, name):>11}" for name in found.weights))
    for at, unit in enumerate(shown):
        lines.append(f"{unit:<{width}}" + "".join(f"  {weights[at]:>11.4f}" for weights in found.weights.values()))
    return "\n".join([*lines, *_trees(found), *_remarks(found)]) + "\n"


def coloured(found: Explained, width: int) -> str:
    """Return a text for a terminal of so many columns: its words on the colours of each weight, and a legend."""
    lines = [f"prediction: {prediction_in_words(found)}"]
    for name, weights in found.weights.items():
        if not found.units:
            break
        top = max(float(weights.max()), 1e-9)
        painted = [(_marked(found, at), float(weight) / top) for at, weight in enumerate(weights)]
        lines += [f"{_NAMES.get(name, name)}  {_legend(top)}", *_wrapped(painted, width)]
    return "\n".join([*lines, *_trees(found), *_remarks(found)]) + "\n"


def _legend(top: float) -> str:
    steps = "".join(_paint(" ", step / (len(BLUES) - 1)) for step in range(len(BLUES)))
    return f"0 {steps} {top:.4f}"


def _paint(text: str, level: float) -> str:
    background, ink = BLUES[round(level * (len(BLUES) - 1))]
    return f"\x1b[48;5;{background}m\x1b[38;5;{ink}m{text}\x1b[0m"


def _wrapped(painted: Sequence[tuple[str, float]], width: int) -> Iterator[str]:
    """Yield lines of painted words of at most `width` columns, where no word is wider."""
    line, used = "  ", 2
    for word, level in painted:
        if used > 2 and used + len(word) + 2 > width:
            yield line
            line, used = "  ", 2
        line, used = line + _paint(f" {word} ", level), used + len(word) + 2
    yield line


def _marked(found: Explained, at: int) -> str:
    """Return a unit as one printable line, marked where it is not in the vocabulary."""
    return printable(found.units[at]) + ("" if found.known[at] else UNKNOWN_MARK)


def _trees(found: Explained) -> list[str]:
    """Return the tree of every layer, in one line."""
    shown = [_marked(found, at) for at in range(len(found.units))]
    return [f"tree {layer}: {brackets(shown, spans)}" for layer, spans in found.trees.items() if shown]


def _remarks(found: Explained) -> list[str]:
    if not found.units:
        return ["(no words)"]
    return (
        [] if all(found.known) else [f"{UNKNOWN_MARK} not in the vocabulary: all such words are the same to the model"]
    )


HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --paper: #fff; --ink: #111; --faint: #555; --line: #ccc; --hue: 0 90 181; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14161a; --ink: #f4f4f4; --faint: #aaa; --line: #444; --hue: 90 160 255; }}
}}
body {{ background: var(--paper); color: var(--ink); font: 1rem/1.6 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1.1rem; margin: 0; }}
section {{ border-top: 1px solid var(--line); padding: 1rem 0; }}
h3, .legend, summary {{ color: var(--faint); font-size: .85rem; font-weight: normal; margin: .6rem 0 .2rem; }}
.words {{ overflow-wrap: anywhere; }}
.w {{ background: rgb(var(--hue) / calc(var(--w) * .6)); border-radius: .2rem; padding: .1rem .25rem; }}
.scale .w {{ padding: .1rem .7rem; border-radius: 0; outline: 1px solid var(--line); }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .1rem .8rem .1rem 0; text-align: left; }} td + td, th + th {{ text-align: right; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>The darker blue a word stands on in light mode, the brighter in dark mode, the larger its weight; the scale ends at
the largest weight of each text. A pointer over a word, and the table below each text, show the numbers. {mark} marks
words that the vocabulary has not.</p>
"""
FOOT = "</body>\n</html>\n"


def page_head(title: str) -> str:
    """Return the beginning of a page, which needs nothing from elsewhere and follows the reader's colour scheme."""
    return HEAD.format(title=html.escape(title), mark=UNKNOWN_MARK)


def page_section(number: int, found: Explained) -> str:
    """Return a text for the page."""
    units = [html.escape(_marked(found, at)) for at in range(len(found.units))]
    parts = [f"<section>\n<h2>{number}. {html.escape(prediction_in_words(found))}</h2>\n"]
    if not units:
        return "".join([*parts, "<p>(no words)</p>\n</section>\n"])
    for name, weights in found.weights.items():
        top = max(float(weights.max()), 1e-9)
        words = " ".join(
            f'<span class="w" style="--w:{weight / top:.3f}" title="{unit}: {name} {weight:.4f}">{unit}</span>'
            for unit, weight in zip(units, weights.tolist(), strict=True)
        )
        steps = "".join(f'<span class="w" style="--w:{step / 4}"></span>' for step in range(5))
        section = _SECTIONS.get(name, name.capitalize())
        parts.append(f'<h3>{section} <span class="scale">0&ensp;{steps}&ensp;{top:.4f}</span></h3>\n')
        parts.append(f'<p class="words">{words}</p>\n')
    for layer, spans in found.trees.items():
        parts.append(f'<h3>Tree {layer}</h3>\n<p class="words">{brackets(units, spans)}</p>\n')
    header = "".join(f"<th>{html.escape(_NAMES.get(name, name))}</th>" for name in found.weights)
    rows = "".join(
        f"<tr><td>{unit}</td>{''.join(f'<td>{weights[at]:.4f}</td>' for weights in found.weights.values())}</tr>\n"
        for at, unit in enumerate(units)
    )
    parts.append(
        f"<details><summary>numbers</summary><table>\n<tr><th>word</th>{header}</tr>\n{rows}</table></details>\n"
    )
    return "".join([*parts, "</section>\n"])
