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
        "lnpool._formulas.attention",
        "lnpool._formulas.safe",
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
        "lnpool._formulas.exact",
        "lnpool._formulas.safe",
        "lnpool._formulas.single_pass",
        "lnpool._types",
        "lnpool._xla.cpu_blocks",
        "lnpool._xla.texts",
        "lnpool._xla.upper",
    },
    "lnpool._xla.inspect": {
        "lnpool._formulas.attention",
        "lnpool._formulas.exact",
        "lnpool._formulas.safe",
        "lnpool._types",
        "lnpool._xla.attend",
        "lnpool._xla.forms",
        "lnpool._xla.texts",
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
        "lnpool._xla.texts",
    },
    "lnpool._xla.texts": {
        "lnpool._formulas.attention",
        "lnpool._formulas.safe",
        "lnpool._formulas.scale",
        "lnpool._types",
        "lnpool._xla.attend",
        "lnpool._xla.cpu_blocks",
        "lnpool._xla.reduce",
    },
    "lnpool._xla.upper": {
        "lnpool._formulas.safe",
        "lnpool._formulas.scale",
        "lnpool._xla.cpu_blocks",
        "lnpool._xla.texts",
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


# The rooms of the harness and which of them each may import. Parts of one room never import one another.
ROOMS = {
    "base": set(),
    "data": {"base"},
    "layers": {"base", "data"},
    "storage": {"base", "layers"},
    "tasks": {"base", "data"},
    "baselines": {"base", "data", "objectives"},
    "poolers": {"base", "layers"},
    "objectives": {"base", "layers"},
    "encoders": {"base", "data", "layers", "poolers"},
    "run": {"base", "data", "encoders", "layers", "objectives", "poolers", "storage", "tasks"},
    "analyses": {"base", "data", "layers", "run", "storage"},
    "sweeping": {"base", "encoders", "objectives", "poolers", "run", "storage", "tasks"},
    "reporting": {"analyses", "base", "data", "objectives", "run", "storage"},
}
PARTS = ("analyses", "baselines", "encoders", "objectives", "poolers", "tasks")
LEVELS = 8


def rooms_of(path: Path) -> tuple[str, set[str]]:
    """The room of a module of the harness (a command is a room of its own), and the other rooms that it imports."""
    room = module_name(path).split(".")[1]
    found = {name.split(".")[1] for name in imports(path) if name.startswith("experiments.")}
    return room, found - {room}


@pytest.mark.parametrize("path", [path for path in EXPERIMENTS if path.name != "__init__.py"], ids=module_name)
def test_experiments_imports(path: Path):
    name, (room, found) = module_name(path), rooms_of(path)
    assert found <= ROOMS.get(room, set(ROOMS)), "a room imports one that it may not; nothing imports a command"
    assert room == "poolers" or not {module for module in imports(path) if module.split(".")[0] == "lnpool"}
    if room in PARTS:
        beside = {module for module in imports(path) if module.startswith(f"experiments.{room}.")}
        assert not beside - {f"experiments.{room}"}, f"{name} imports another part"


def test_rooms_have_few_levels(capsys):
    """The longest chain of imports between rooms; a cycle would be an endless one."""
    edges: dict[str, set[str]] = {}
    for path in EXPERIMENTS:
        if path.parent != ROOT / "experiments" or path.name != "__init__.py":
            room, found = rooms_of(path)
            edges.setdefault(room, set()).update(found)

    def level(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a cycle: {' -> '.join([*above, room])}"
        return 1 + max((level(other, (*above, room)) for other in edges[room]), default=0)

    levels = {room: level(room) for room in edges}
    with capsys.disabled():
        by_level = {n: sorted(room for room in levels if levels[room] == n) for n in sorted(set(levels.values()))}
        print(f"\nlevels of imports of experiments: {max(levels.values())}", *by_level.items(), sep="\n  ")
    assert max(levels.values()) <= LEVELS


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
