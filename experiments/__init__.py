"""The experiment harness: text encoders trained with learned-norm pooling and with every other pooling."""

import sys
from importlib.util import find_spec

_NEEDED = ("flax", "jax", "matplotlib", "numpy", "optax", "orbax", "tensorboardX", "tqdm", "tyro")

_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    _message = f'experiments needs {", ".join(_missing)}: pip install "lnpool[experiments]"'
    # While `python -m experiments.x` imports this package, argv[0] is still "-m".
    if sys.argv[:1] == ["-m"]:
        print(_message, file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(_message)
