"""Everything that an accelerator can show, on one page: `python -m benchmarks.device --out page.md`.

Runs the tests marked ``gpu`` and then `benchmarks.pool`, each in a process of its own, because a process that uses an
accelerator keeps its memory. The page says what ran, on which device, and how long pooling takes there against
attention pooling; send it, and the order of the implementations can follow what was measured.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import record, table
from benchmarks.cli import Parser, UsageError, command, known
from benchmarks.page import fold
from benchmarks.shapes import DEFAULT_SHAPES, SHAPES

PROGRAM = "benchmarks.device"
ROOT = Path(__file__).parent.parent

_PROBE = """\
import json, jax
device = jax.devices()[0]
stats = device.memory_stats() if hasattr(device, "memory_stats") else None
print(json.dumps({
    "platform": device.platform, "kind": device.device_kind, "count": jax.device_count(),
    "runtime": " ".join(device.client.platform_version.split()), "memory": (stats or {}).get("bytes_limit"),
}))
"""


class Finished(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line that it printed."""
        return next((line for line in reversed((self.out + self.err).splitlines()) if line.strip()), "")


def _python(*arguments: str) -> Finished:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


def probe() -> dict[str, Any]:
    """Return what JAX says of the first device, and the version of the driver, where the system tells it."""
    done = _python("-c", _PROBE)
    if done.code:
        raise UsageError(f"JAX found no device: {done.last}")
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    found["driver"] = _driver() if found["platform"] == "gpu" else None
    return found


def _driver() -> str | None:
    """Return the version of the NVIDIA driver; None where its tool does not say."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    question = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(question, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0].strip() if lines else None


def test(selected: list[str]) -> Finished:
    """Run the tests marked gpu."""
    return _python("-m", "pytest", "-m", "gpu", "--optimised", "-q", "-p", "no:cacheprovider", *selected)


def measure(arguments: list[str]) -> tuple[Finished, record.Record | None]:
    """Run `benchmarks.pool`, and return its record, if it came to one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        done = _python("-m", "benchmarks.pool", *arguments, "--out", str(file))
        return done, record.read(file) if done.code == 0 else None


def page(device: dict[str, Any], tested: Finished, measured: Finished, result: record.Record | None) -> str:
    """Return the page."""
    parts = [f"# Pooling on {device['kind']}", "\n".join(_setting(device, tested)), *_failures(tested)]
    if result is None:
        return "\n\n".join([*parts, f"The benchmarks did not end: `{measured.last}`"]) + "\n"
    details = fold("All measurements", table.whole(result))
    heading = "## Time over that of attention pooling"
    return "\n\n".join([*parts, heading, table.summary(result["cells"]), table.SUMMARY, details]) + "\n"


def _setting(device: dict[str, Any], tested: Finished) -> Iterator[str]:
    yield f"- {device['count']} x {device['kind']} ({device['platform']})"
    if device["memory"]:
        yield f"- memory that JAX may use: {device['memory'] / 2**30:.1f} GiB a device"
    if device["driver"]:
        yield f"- driver {device['driver']}"
    yield f"- runtime: {device['runtime']}"
    yield f"- tests marked gpu: {tested.last.strip('= ')}"


def _failures(tested: Finished) -> list[str]:
    lines = [line for line in tested.out.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return ["```\n" + "\n".join(lines) + "\n```"] if lines else []


def run(arguments: list[str]) -> bool:
    """Parse, test, measure, print; return whether all of it ran and every test passed."""
    parser = Parser(
        prog=f"python -m {PROGRAM}", description="Test and time pooling on the accelerator of this machine."
    )
    parser.add_argument("--shapes", nargs="+", default=DEFAULT_SHAPES, metavar="NAME", help="as for benchmarks.pool")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="for one shape and fill; default: 10")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there too")
    parser.add_argument(
        "--cpu", action="store_true", help="try the command where there is no accelerator: a few tests, a tiny shape"
    )
    options = parser.parse_args(arguments)
    shapes = ["tiny"] if options.cpu else [known("shape", name, SHAPES) and name for name in options.shapes]
    if options.out and not options.out.parent.is_dir():
        raise UsageError(f"the folder of {options.out} does not exist")
    if not (ROOT / "tests").is_dir():
        raise UsageError("the tests are not here: run this in a clone of the repository")
    device = probe()
    if device["platform"] == "cpu" and not options.cpu:
        raise UsageError("JAX sees no accelerator here; install JAX for it, or see the page of a CPU with --cpu")
    print(f"{PROGRAM}: tests on {device['kind']}", file=sys.stderr)
    tested = test(["tests/op/test_device.py", "-k", "repeat"] if options.cpu else [])
    print(f"{PROGRAM}: benchmarks", file=sys.stderr)
    rounds = ["--rounds", "2", "--rows", "xla"] if options.cpu else ["--seconds", str(options.seconds)]
    measured, result = measure(["--shapes", *shapes, *rounds])
    text = page(device, tested, measured, result)
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return tested.code == 0 and result is not None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 done, 1 where a test failed or the benchmarks did not end, 2 usage."""
    went_well: list[bool] = []
    code = command(PROGRAM, lambda rest: went_well.append(run(rest)), arguments)
    return code or int(not all(went_well))


if __name__ == "__main__":
    sys.exit(main())
