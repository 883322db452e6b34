"""An interpolated n-gram model of words, smoothed after Kneser and Ney (1995): what a language model has to beat.

```
p_k(w | h) = max(c(h w) - D, 0) / c(h) + D t(h) / c(h) p_{k-1}(w | h without its first word),      p_{-1} = 1 / words
```

c counts occurrences in the longest histories and in those that begin a text, and in shorter ones the different words
that came before; t(h) is the number of different words after h. As in `objectives.language_model`, every word of a text
is predicted, the first one too, and the unknown word is a word; so perplexities of the same data compare. The length
of the history and the discount D are chosen on the validation split.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.base.contracts import Task
from experiments.data.text_task import check_texts
from experiments.objectives.language_model import Likelihood

ORDERS = (1, 2, 3, 4)
DISCOUNTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_BEGIN = -1


class NGrams:
    """Counts of words after histories of up to `order` - 1 words."""

    def __init__(self, texts: Sequence[Sequence[int]], order: int, words: int):
        self.order = order
        self.words = words
        """How many words a text can hold, the unknown word included."""
        self.after: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for text in texts:
            for history, word in self._events(text):
                self.after[len(history)][history][word] += 1
        for length in range(order - 1, 0, -1):
            for history, counts in self.after[length].items():
                for word in counts:
                    self.after[length - 1][history[1:]][word] += 1
        self.totals = [{history: counts.total() for history, counts in level.items()} for level in self.after]

    @property
    def size(self) -> int:
        """Number of counts."""
        return sum(len(counts) for level in self.after for counts in level.values())

    def _events(self, text: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield the longest history of every word; the beginning of the text stands for a word."""
        begun = (_BEGIN, *text)
        for place in range(1, len(begun)):
            yield begun[max(0, place - self.order + 1) : place], begun[place]

    def evidence(self, texts: Sequence[Sequence[int]]) -> Float[np.ndarray, "N K 3"]:
        """Return c(h w), c(h) and t(h) of every word for histories of 0, 1, ... words; c(h) is 0 where h is new."""
        found = []
        for text in texts:
            for history, word in self._events(text):
                lines = np.zeros((self.order, 3))
                for length in range(len(history) + 1):
                    short = history[len(history) - length :]
                    if short not in self.totals[length]:
                        break
                    counts = self.after[length][short]
                    lines[length] = counts[word], self.totals[length][short], len(counts)
                found.append(lines)
        return np.array(found).reshape(-1, self.order, 3)

    def probabilities(self, evidence: Float[np.ndarray, "N K 3"], discount: float) -> Float[np.ndarray, " N"]:
        """Return the probability of every word."""
        p = np.full(len(evidence), 1 / self.words)
        for count, total, types in evidence.transpose(1, 2, 0):
            seen = total > 0
            safe = np.where(seen, total, 1)
            p = np.where(seen, np.maximum(count - discount, 0) / safe + discount * types / safe * p, p)
        return p

    def likelihood(self, evidence: Float[np.ndarray, "N K 3"], discount: float) -> Likelihood:
        """Return what the perplexity is computed from."""
        logs = np.log(self.probabilities(evidence, discount))
        return Likelihood(-logs.sum(), np.float64(len(logs)))  # type: ignore[arg-type]


def language_model(task: type[Task], options: Any) -> dict[str, Any]:
    """Score n-grams by perplexity."""
    check_texts(task)
    data = task(options)
    train, validation, test = ([*_texts(data, split)] for split in ("train", "validation", "test"))
    models = {order: NGrams(train, order, int(data.codec.sizes["words"]) - 1) for order in ORDERS}  # without padding
    evidence = {order: model.evidence(validation) for order, model in models.items()}
    validated = {
        (order, discount): models[order].likelihood(evidence[order], discount).compute()
        for order, discount in product(ORDERS, DISCOUNTS)
    }
    order, discount = min(validated, key=lambda choice: validated[choice]["perplexity"])
    best = models[order]
    return {
        "encoder": "kneser-ney",
        "pooler": "n-gram",
        "test": best.likelihood(best.evidence(test), discount).compute(),
        "validation": validated[order, discount],
        "order": order,
        "discount": discount,
        "parameters": best.size,
        "data": data.describe(),
    }


def _texts(task: Task, split: str) -> Iterator[list[int]]:
    """Yield the words of every text by number, cut as training cuts them."""
    for batch in task.batches(split):
        for tokens, mask, weight in zip(batch.tokens, batch.mask, batch.weights, strict=True):
            if weight:
                yield tokens[mask].tolist()
