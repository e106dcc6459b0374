"""What a user typed is shown as typed: never as markup, a formula or an instruction to the terminal."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.text import Text
from rich.console import Console
from toy import toy_config

from distmeta.errors import LINE, DataError, printable
from distmeta.report import figures
from distmeta.report.progress import Reporter
from distmeta.report.tables import cell, markdown, markdown_table
from distmeta.runs import train as driver

TYPED = {
    "[INST] text [/INST]": "[INST] text [/INST]",
    "[/]": "[/]",
    "[bold]x[/bold] [link=http://x]y[/link]": "[bold]x[/bold] [link=http://x]y[/link]",
    "data[red]/a.csv": "data[red]/a.csv",
    ":smile: {braces} {0} %s %(x)s \\n": ":smile: {braces} {0} %s %(x)s \\n",
    "\x1b[31mred\x07": "\\x1b[31mred\\x07",
    "two\nlines\tand\rmore\x00": "two\\nlines\\tand\\rmore\\x00",
    "turned \u202eback": "turned \\u202eback",
    "lone \udc80 surrogate": "lone \\udc80 surrogate",
    "e\u0301 שלום 👩\u200d🔬 ไทย": "e\u0301 שלום 👩\u200d🔬 ไทย",
}


@pytest.mark.parametrize(("typed", "shown"), TYPED.items())
def test_on_a_terminal(typed: str, shown: str) -> None:
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=300, force_terminal=True, color_system=None))
    reporter.note(typed)
    reporter.table(typed, ["label", typed], [[typed, "1"]])
    with reporter:
        reporter.episodes(typed, 1, 2)
    assert out.getvalue().count(shown) >= 4
    out.getvalue().encode()


@pytest.mark.parametrize("typed", [*TYPED, "cost $$ \\q", "$x", "a_b^{c}", "$\\frac{1}{", "_hidden", "", "x" * 5000])
def test_in_a_figure(typed: str, tmp_path: Path) -> None:
    figure = figures.task_graph([typed, "b"], [(1, 0, 1.0)], tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 1000
    (label, _) = figure.axes[0].get_yticklabels()
    assert label.get_text() == (printable(typed) if len(typed) < 40 else "x" * 19 + "…" + "x" * 20)
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("a | b", "a \\| b"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("[x](http://y)", "\\[x\\](http://y)"),
        ("*b* `c` __d__", "\\*b\\* \\`c\\` \\_\\_d\\_\\_"),
        ("two\nlines", "two\\\\nlines"),
    ],
)
def test_in_a_description(typed: str, shown: str) -> None:
    assert markdown(typed) == shown
    assert markdown_table(["label"], [[typed]]) == f"| label |\n| --- |\n| {shown} |"


@pytest.mark.parametrize("typed", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "\rx"])
def test_in_a_spreadsheet(typed: str) -> None:
    assert cell(typed) == f"'{typed}"
    assert [cell(value) for value in ("a=b", -1, 0.5, "")] == ["a=b", -1, 0.5, ""]


@pytest.mark.parametrize("where", ["a.csv", "a" * 5000])
@pytest.mark.parametrize("found", ["no column", "no column among " + "'x', " * 5000, "first\n\n  second"])
@pytest.mark.parametrize("remedy", ["set data.text=x", "did you mean " + "y" * 5000])
def test_an_error_is_one_line_that_is_not_long(where: str, found: str, remedy: str) -> None:
    line = str(DataError(where, found, remedy))
    assert len(line) <= LINE
    assert "\n" not in line
    if len(where + found + remedy) < 100:
        assert line == f"{where}: {found.replace(chr(10) * 2 + '  ', ' ')}; {remedy}"
    assert line.startswith(where[:5])
    assert remedy[:13] in line


def test_a_figure_that_fails_costs_a_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such glyph")

    monkeypatch.setattr(figures, "adaptation_curve", fail)
    out = io.StringIO()
    config = toy_config(tmp_path, outer__steps=1, evaluation__episodes=2, evaluation__curve_episodes=2)
    result = driver.train(config, tmp_path / "run", Reporter(Console(file=out, width=200)))
    assert result["meta_test"]
    assert "a figure was not drawn (ValueError: no such glyph)" in out.getvalue()
    assert "results are in" in out.getvalue()


def test_figures_before_one_that_fails_are_kept(tmp_path: Path) -> None:
    said: list[str] = []

    def draw() -> Iterator[Path]:
        yield tmp_path / "one.png"
        raise OSError("no space")

    assert figures.attempt(said.append, draw) == [tmp_path / "one.png"]
    assert said == ["a figure was not drawn (OSError: no space)"]
