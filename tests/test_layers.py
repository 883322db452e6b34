"""The architecture, enforced: who may import whom, and how large a file and a function may grow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "lnpool").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))

# Every module of the library and what of the library it may import. A new module is a new line.
ALLOWED = {
    "lnpool": {"lnpool._dispatch", "lnpool._formulas.scale", "lnpool._inspect", "lnpool._op", "lnpool.exponent"},
    "lnpool.nn": {"lnpool", "lnpool._check", "lnpool._types", "lnpool.exponent"},
    "lnpool.exponent": {"lnpool._check"},
    "lnpool._op": {"lnpool._canonical", "lnpool._compat", "lnpool._dispatch", "lnpool._types"},
    "lnpool._inspect": {"lnpool._canonical", "lnpool._check", "lnpool._formulas.scale", "lnpool._xla.inspect"},
    "lnpool._canonical": {
        "lnpool._check",
        "lnpool._dispatch",
        "lnpool._formulas.scale",
        "lnpool._types",
        "lnpool._xla.packed",
    },
    "lnpool._check": {"lnpool._formulas.scale"},
    "lnpool._dispatch": {"lnpool._pallas", "lnpool._reference", "lnpool._types", "lnpool._xla"},
    "lnpool._pallas": {"lnpool._pallas.rule"},
    "lnpool._pallas.compat": {"lnpool._compat"},
    "lnpool._pallas.gpu": {"lnpool._pallas.compat", "lnpool._pallas.online", "lnpool._pallas.tiling", "lnpool._types"},
    "lnpool._pallas.grid": {"lnpool._pallas.tiling"},
    "lnpool._pallas.online": {
        "lnpool._formulas.safe",
        "lnpool._formulas.scale",
        "lnpool._formulas.single_pass",
        "lnpool._types",
    },
    "lnpool._pallas.rule": {
        "lnpool._pallas.compat",
        "lnpool._pallas.gpu",
        "lnpool._pallas.online",
        "lnpool._pallas.tpu",
        "lnpool._types",
        "lnpool._xla.attend",
        "lnpool._xla.packed",
        "lnpool._xla.rule",
    },
    "lnpool._pallas.tiling": set(),
    "lnpool._pallas.tpu": {
        "lnpool._pallas.compat",
        "lnpool._pallas.grid",
        "lnpool._pallas.online",
        "lnpool._pallas.tiling",
        "lnpool._types",
    },
    "lnpool._xla": {"lnpool._xla.rule"},
    "lnpool._xla.attend": {
        "lnpool._formulas.attention",
        "lnpool._formulas.safe",
        "lnpool._types",
        "lnpool._xla.cpu_blocks",
        "lnpool._xla.packed",
        "lnpool._xla.reduce",
    },
    "lnpool._xla.cpu_blocks": {"lnpool._compat"},
    "lnpool._xla.forms": {
        "lnpool._compat",
        "lnpool._formulas.attention",
        "lnpool._formulas.exact",
        "lnpool._formulas.safe",
        "lnpool._formulas.scale",
        "lnpool._formulas.single_pass",
        "lnpool._types",
        "lnpool._xla.attend",
        "lnpool._xla.cpu_blocks",
        "lnpool._xla.reduce",
    },
    "lnpool._xla.inspect": {
        "lnpool._formulas.attention",
        "lnpool._formulas.exact",
        "lnpool._formulas.safe",
        "lnpool._types",
        "lnpool._xla.attend",
        "lnpool._xla.forms",
    },
    "lnpool._xla.packed": {"lnpool._types"},
    "lnpool._xla.reduce": {"lnpool._compat", "lnpool._formulas.safe", "lnpool._types", "lnpool._xla.packed"},
    "lnpool._xla.rule": {
        "lnpool._compat",
        "lnpool._formulas.safe",
        "lnpool._formulas.scale",
        "lnpool._types",
        "lnpool._xla.attend",
        "lnpool._xla.cpu_blocks",
        "lnpool._xla.forms",
        "lnpool._xla.packed",
        "lnpool._xla.reduce",
    },
    "lnpool._reference": {"lnpool._formulas.scale", "lnpool._types"},
    "lnpool._formulas": set(),
    "lnpool._formulas.attention": {"lnpool._formulas.safe"},
    "lnpool._formulas.exact": {"lnpool._formulas.safe", "lnpool._formulas.series"},
    "lnpool._formulas.safe": set(),
    "lnpool._formulas.scale": {"lnpool._types"},
    "lnpool._formulas.series": set(),
    "lnpool._formulas.single_pass": {"lnpool._formulas.safe"},
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
    if not name.startswith(("experiments.poolers.", "experiments.norms")):
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
