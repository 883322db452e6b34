"""The notebook: its two forms hold the same cells, and all of them run, in small sizes."""

import jupytext
import nbclient
import pytest

from tests.test_readme import ROOT

TEXT, NOTEBOOK = ROOT / "notebooks" / "quickstart.py", ROOT / "notebooks" / "quickstart.ipynb"


def cells(notebook) -> list[tuple]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells]


def test_both_forms_hold_the_same_cells_and_no_results():
    """After a change of the text: jupytext --to ipynb notebooks/quickstart.py."""
    notebook = jupytext.read(NOTEBOOK)
    assert cells(notebook) == cells(jupytext.read(TEXT))
    assert len(notebook.cells) > 20
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_cell_runs(tmp_path, monkeypatch):
    for name, value in {"SMALL": "1", "RUNS": f"{tmp_path / 'quickstart'}", "JAX_PLATFORMS": "cpu"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XLA_FLAGS")
    notebook = jupytext.read(NOTEBOOK)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": ROOT / "notebooks"}}).execute()
    printed = "".join(
        output.get("text", "")
        + output.get("data", {}).get("text/html", "")
        + output.get("data", {}).get("text/markdown", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
    assert printed.startswith("cpu [CpuDevice(id=0)]\n")
    for found in (
        "test accuracy 0.",
        "| wordnet | bag | attention |",
        "&lt;span class=&quot;w&quot;",
        "largest difference of d states",
        "# Pooling on cpu",
    ):
        assert found in printed
