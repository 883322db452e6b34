"""Tasks: examples, loss and metrics. A new one is a file here and a row in the table."""

from experiments.contracts import Task
from experiments.tasks.wordnet import WordNet

TASKS: dict[str, type[Task]] = {"wordnet": WordNet}
