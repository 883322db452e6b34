"""The experiment harness: text encoders trained with learned-norm pooling and with every other pooling."""

import os
import sys
from importlib.util import find_spec

# No file that is opened later may get the number of a standard stream that is closed: it would receive what is printed.
while (_number := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
os.close(_number)

_NEEDED = ("flax", "jax", "matplotlib", "numpy", "optax", "orbax", "tensorboardX", "tqdm", "tyro")

_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    _message = f'experiments needs {", ".join(_missing)}: python -m pip install -e ".[experiments]"'
    # While `python -m experiments.x` imports this package, argv[0] is still "-m".
    if sys.argv[:1] == ["-m"]:
        print(_message, file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(_message)
