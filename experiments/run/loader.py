"""Reads this folder with jax and numpy alone: `Model(folder).predict(["a text"])`."""

import dataclasses
import hashlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Model:
    """The model of a folder, all of whose files must be as they were written."""

    def __init__(self, folder: str | Path):
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
        for name, x in json.loads(files["manifest.json"])["files"].items():
            if hashlib.sha256(files.get(name, b"")).hexdigest() != x["sha256"]:
                raise ValueError(f"{Path(folder) / name} is not as it was written.")
        self.facts, words = json.loads(files["programs.json"]), json.loads(files["vocabulary.json"])["words"]
        self.index = {word: number for number, word in enumerate(words, start=2)}  # 1 is every other word, 0 padding
        path = str(Path(folder) / "pieces.py")
        self.pieces = runpy.run_path(path)["WordPieces"](words) if self.facts["pieces"] else None
        content, self.parameters = files["parameters.safetensors"], {}
        start = 8 + int.from_bytes(content[:8], "little")
        for name, x in json.loads(content[8:start]).items():
            self.parameters[name] = np.frombuffer(content[start:][slice(*x["data_offsets"])], "<f4").reshape(x["shape"])
        self.programs = [(x["width"], x["inputs"], self._program(x, files[x["file"]])) for x in self.facts["programs"]]

    def _program(self, x: dict[str, Any], content: bytes) -> Any:
        # jax.export.deserialize does this too, but needs flatbuffers: the module of the file in a program of its form.
        (b,) = jax.export.symbolic_shape("b")
        batch = [jax.ShapeDtypeStruct((b, *shape), dtype) for dtype, shape in x["inputs"]]
        zeros = jax.jit(lambda *_: {name: jax.numpy.zeros((b, *shape), dtype) for name, dtype, shape in x["outputs"]})
        like = jax.export.export(zeros, platforms=self.facts["platforms"])(self.parameters, batch)
        own = {"mlir_module_serialized": content[slice(*x["module"])], "calling_convention_version": x["version"]}
        return jax.jit(dataclasses.replace(like, **own).call)

    def _tokens(self, text: str) -> list[list[str]]:
        if self.pieces is None:
            return [re.findall(self.facts["word"], part) for part in re.split(self.facts["end"], text.lower())]
        most, found = self.programs[-1][0], self.pieces(text)
        return [found if len(found) <= most else [*found[: most - 1], found[-1]]]  # the last piece is [SEP]

    def answers(self, texts: list[str]) -> Any:
        """Yield what the program says of every text: arrays by name, `pooled` among them where the model pools."""
        texts, facts, size = [texts] if isinstance(texts, str) else texts, self.facts, self.facts["batch_size"]
        for start in range(0, len(texts), size):
            some = [self._tokens(text) for text in texts[start : start + size]]
            longest = max(sum(map(len, text)) for text in some)
            width, inputs, program = next(x for x in self.programs if x[0] >= longest or x is self.programs[-1])
            batch = [np.zeros((size, *shape), dtype) for dtype, shape in inputs]  # the words; which are real; unused
            for row, text in zip(batch[0].reshape(size, -1), some, strict=False):
                at, left, columns = 0, width, batch[0].shape[-1]
                for words in text:  # of a sentence; where the model reads no sentences, of the text
                    at += -at % columns if at % columns >= facts["shortest"] else 0
                    row[at : at + len(words[:left])] = [self.index.get(word, 1) for word in words[:left]]
                    at, left = at + len(words[:left]), left - len(words[:left])
            outputs = jax.device_get(program(self.parameters, [batch[0], batch[0] > 0, *batch[2:]]))
            yield from ({name: x[row] for name, x in outputs.items()} for row in range(len(some)))

    def predict(self, texts: list[str]) -> list[dict[str, float]]:
        """Return the probability of every class or tag, or the numbers that are predicted, by name; a text each."""
        rows = (np.ravel([x[name] for name in self.facts["predicted"]]) for x in self.answers(texts))
        return [dict(zip(self.facts["names"], row.tolist(), strict=True)) for row in rows]
