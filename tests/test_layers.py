"""The architecture, enforced: who may import whom, and how large a file and a function may grow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "lnpool").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))

# Every module of the library and what of the library it may import. A new module is a new line.
ALLOWED = {
    "lnpool": {"lnpool.exponent", "lnpool._dispatch", "lnpool._op", "lnpool._scale", "lnpool._views"},
    "lnpool.nn": {"lnpool", "lnpool._check", "lnpool.exponent"},
    "lnpool.exponent": {"lnpool._check"},
    "lnpool._op": {"lnpool._check", "lnpool._compat", "lnpool._dispatch", "lnpool._types"},
    "lnpool._views": {"lnpool._check", "lnpool._exact", "lnpool._rows", "lnpool._scale", "lnpool._weights"},
    "lnpool._check": {"lnpool._dispatch", "lnpool._pieces", "lnpool._scale", "lnpool._types"},
    "lnpool._dispatch": {"lnpool._kernels", "lnpool._reference", "lnpool._types", "lnpool._xla"},
    "lnpool._kernels": {"lnpool._kernels._rule"},
    "lnpool._kernels._rule": {
        "lnpool._bounded",
        "lnpool._kernels._compat",
        "lnpool._kernels._elements",
        "lnpool._kernels.gpu",
        "lnpool._kernels.tpu",
        "lnpool._pieces",
        "lnpool._types",
        "lnpool._weights",
        "lnpool._xla",
    },
    "lnpool._kernels.tpu": {
        "lnpool._kernels._compat",
        "lnpool._kernels._elements",
        "lnpool._kernels.tiling",
        "lnpool._kernels.walks",
        "lnpool._types",
    },
    "lnpool._kernels.walks": {"lnpool._kernels.tiling"},
    "lnpool._kernels.gpu": {
        "lnpool._kernels._compat",
        "lnpool._kernels._elements",
        "lnpool._kernels.tiling",
        "lnpool._types",
    },
    "lnpool._kernels._elements": {"lnpool._exact", "lnpool._scale", "lnpool._types"},
    "lnpool._kernels.tiling": set(),
    "lnpool._kernels._compat": {"lnpool._compat"},
    "lnpool._xla": {
        "lnpool._bounded",
        "lnpool._compat",
        "lnpool._exact",
        "lnpool._pieces",
        "lnpool._rows",
        "lnpool._scale",
        "lnpool._types",
        "lnpool._weights",
    },
    "lnpool._reference": {"lnpool._rows", "lnpool._scale", "lnpool._types"},
    "lnpool._exact": {"lnpool._scale", "lnpool._series", "lnpool._types", "lnpool._weights"},
    "lnpool._bounded": {"lnpool._scale", "lnpool._types", "lnpool._weights"},
    "lnpool._weights": {"lnpool._pieces", "lnpool._types"},
    "lnpool._pieces": {"lnpool._types"},
    "lnpool._rows": {"lnpool._compat", "lnpool._types"},
    "lnpool._scale": {"lnpool._types"},
    "lnpool._series": set(),
    "lnpool._types": set(),
    "lnpool._compat": set(),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of this project that a file imports, ``from package import module`` resolved to the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = ROOT / node.module.replace(".", "/") / alias.name
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {name for name in found if name.split(".")[0] in ("lnpool", "experiments", "tests")}


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_library_imports(path: Path):
    assert imports(path) <= ALLOWED[module_name(path)]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=module_name)
def test_experiments_imports(path: Path):
    name, found = module_name(path), imports(path)
    if not name.startswith(("experiments.poolers.", "experiments.layers.norms")):
        assert not {module for module in found if module.split(".")[0] == "lnpool"}
    assert name == "experiments.sweep" or "experiments.train" not in found
    for folder in ("encoders", "poolers", "tasks"):
        if name.startswith(f"experiments.{folder}."):
            others = {f"experiments.{kind}" for kind in ("encoders", "poolers", "tasks")}
            assert not {module for module in found if ".".join(module.split(".")[:2]) in others}


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_library_reads_no_flags_or_environment(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Attribute) and node.attr in ("environ", "argv", "getenv")), node.lineno


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_only_check_raises_for_user_mistakes(path: Path):
    """Errors are raised in _check; _op re-raises JAX's TypeError with the fix, nn says which extra is missing."""
    raises = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    if path.name not in ("_check.py", "_op.py", "nn.py"):
        assert not raises


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_custom_rules_live_in_op(path: Path):
    source = path.read_text()
    assert path.name == "_op.py" or ("jax.custom_vjp" not in source and "jax.custom_jvp" not in source)


@pytest.mark.parametrize("path", LIBRARY + EXPERIMENTS, ids=module_name)
def test_sizes(path: Path):
    source = path.read_text()
    assert source.count("\n") <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            assert node.end_lineno - node.lineno - docstring.count("\n") <= 60, node.name
