"""HTML reports: one self-contained file a report, with its plots drawn as SVG into the page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

# Text stays text, and the same plot gives the same bytes.
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "ml-platform"}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
  h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dae1 }
  .lead, figcaption { color: #5b6675 }
  figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
  .scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
  th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #edf0f3; white-space: nowrap }
</style>
<h1>{{ title }}</h1>
<p class="lead">{{ lead }}</p>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for table in section.tables %}
<div class="scroll"><table>
<thead><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% for value in row %}<td>{{ value | shown }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% for plot in section.plots %}
<figure role="img" aria-label="{{ plot.caption }}">{{ plot.svg }}<figcaption>{{ plot.caption }}</figcaption></figure>
{% endfor %}
</section>
{% endfor %}
</html>
"""


@dataclass(frozen=True)
class Table:
    """Rows under a head; numbers are shown with four digits."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Plot:
    """A figure as SVG, with a sentence that says what is to be seen."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report: a text, then tables, then plots."""

    title: str
    text: str = ""
    tables: Sequence[Table] = field(default=())
    plots: Sequence[Plot] = field(default=())


def figure(width: float = 9, height: float = 4) -> Figure:
    """An empty figure of a size in inches; no window and no global state, as pyplot would have."""
    return Figure(figsize=(width, height), layout="constrained")


def plot(drawn: Figure, caption: str) -> Plot:
    """Make a drawn figure a part of a page."""
    svg = io.StringIO()
    with mpl.rc_context(STYLE):
        drawn.savefig(svg, format="svg", metadata={"Date": None}, transparent=True)
    return Plot(Markup(svg.getvalue()[svg.getvalue().index("<svg") :]), caption)


def write(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write a page; whatever stands in the data is escaped, and nothing is loaded from elsewhere."""
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["shown"] = _shown
    page = environment.from_string(PAGE).render(title=title, lead=lead, sections=sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
