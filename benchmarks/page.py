"""Write a measurement into the documentation: `python -m benchmarks.page FILE.json`.

The numbers of docs/performance.md stand between two markers, and come from the file alone: the same file gives the
same page.
"""

import sys
from pathlib import Path

from benchmarks import record, table, targets
from benchmarks.cli import Parser, UsageError, command

PROGRAM = "benchmarks.page"
BEGIN, END = "<!-- benchmarks.page: begin -->", "<!-- benchmarks.page: end -->"
PAGE = Path("docs/performance.md")


def fill(page: str, result: record.Record) -> str:
    """Return the page with the text between its markers replaced."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise UsageError(f"the page needs the two lines {BEGIN} and {END}, in this order")
    return f"{head}{BEGIN}\n\n{_measured(result)}\n\n{END}{tail}"


def _measured(result: record.Record) -> str:
    """Return the summary and the marks, then every table, folded away."""
    dense = [cell for cell in result["cells"] if cell["fill"] == "dense"] or result["cells"]
    rest = [cell for cell in result["cells"] if cell not in dense]
    parts = [
        "## Summary",
        table.summary(dense),
        table.SUMMARY,
        fold("The same where a quarter of the tokens is real", table.summary(rest)) if rest else "",
        "## Marks",
        "Two shapes have marks: the most that a form may take of the time of another. A mark that is missed is bold.",
        "\n".join(targets.lines(result)),
        "## Every number",
        table.setting(result),
        table.LEGEND,
        *(fold(table.title(cell), table.about(cell), table.one(cell)) for cell in result["cells"]),
    ]
    return "\n\n".join(filter(None, parts))


def fold(summary: str, *paragraphs: str) -> str:
    """Return paragraphs that are shown when the reader asks for them."""
    return "\n\n".join([f"<details><summary>{summary}</summary>", *paragraphs, "</details>"])


def run(arguments: list[str]) -> None:
    """Parse, and write the page and its figure."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="Write the tables of a measurement into a page.")
    parser.add_argument("file", type=Path, metavar="FILE.json", help="what benchmarks.pool wrote with --out")
    parser.add_argument(
        "--page", type=Path, default=PAGE, metavar="FILE.md", help=f"page with the markers; default: {PAGE}"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the figure too (needs matplotlib)")
    options = parser.parse_args(arguments)
    result = record.read(options.file)
    if not options.page.is_file():
        raise UsageError(f"there is no page {options.page}: run this where the repository is, or give --page")
    text = fill(options.page.read_text(encoding="utf-8"), result)
    options.page.write_text(text, encoding="utf-8")
    if options.plot:
        from benchmarks import plot  # matplotlib, which nothing else needs

        plot.draw(options.plot, result)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command(PROGRAM, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
