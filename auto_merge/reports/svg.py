"""Figures as inline SVG text: one look, light and dark, the same bytes for the same picture.

Figures are drawn in the light colours of :data:`PALETTE`. In the SVG every such colour becomes a
CSS variable with that colour as fallback, so a page can redefine it for dark mode and a stand-alone
file still looks right. Text stays text in the font of the page.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: Mapping[str, tuple[str, str]] = {
    "ink": ("#1b2027", "#e4e8ec"),
    "muted": ("#5c6670", "#9ba6b1"),
    "grid": ("#dfe3e8", "#303741"),
    "paper": ("#fefefe", "#171b21"),
    "on-accent": ("#fffffe", "#0e1116"),
    # Okabe & Ito's colours, darkened or lightened for contrast of at least 3:1 with the paper.
    "blue": ("#0a66ad", "#63b0ea"),
    "orange": ("#c4540a", "#f0955a"),
    "green": ("#0b7f5e", "#3fbf9a"),
    "purple": ("#9c4f8b", "#d898c8"),
    "amber": ("#a37503", "#e3b341"),
    "grey": ("#7d8792", "#87919c"),
}
"""Name -> (light, dark). All light colours differ, so that each can be told in the SVG."""

INK, MUTED, GRID, PAPER = (PALETTE[name][0] for name in ("ink", "muted", "grid", "paper"))
ON_ACCENT, BLUE, ORANGE = (PALETTE[name][0] for name in ("on-accent", "blue", "orange"))
GREEN, PURPLE, AMBER, GREY = (PALETTE[name][0] for name in ("green", "purple", "amber", "grey"))

_SIZE = 9.0
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    # A dollar sign in a name is a dollar sign.
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.family": "DejaVu Sans",
    "font.size": _SIZE,
    "axes.titlesize": _SIZE,
    "axes.labelsize": _SIZE,
    "xtick.labelsize": _SIZE,
    "ytick.labelsize": _SIZE,
    "legend.fontsize": _SIZE,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "legend.frameon": False,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
}
_XLINK = "{http://www.w3.org/1999/xlink}href"


class Drawing:
    """A figure that is being drawn.

    Attributes:
        figure: The matplotlib figure.
        axes: Its axes.
        tooltips: Group id of a scatter -> text per point, shown on hover.
        svg: The picture; empty until the drawing is finished.
    """

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure = figure
        self.axes = axes
        self.tooltips: dict[str, Sequence[str]] = {}
        self.svg = ""


@contextmanager
def drawing(name: str, description: str, width: float, height: float) -> Iterator[Drawing]:
    """Draws one picture; on leaving, ``svg`` of the drawing holds the text of its SVG element.

    Args:
        name: Prefix of all ids, unique in a page; also the salt that makes ids deterministic.
        description: What the picture shows, for those who cannot see it.
        width: Inches; the picture scales with the page, so this sets the text's relative size.
        height: Inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        picture = Drawing(figure, figure.add_subplot())
        yield picture
        buffer = BytesIO()
        with warnings.catch_warnings():
            # The page's font shows what matplotlib's own font lacks.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        picture.svg = _inline(buffer.getvalue(), name, description, picture.tooltips)


def palette_css(place: int) -> str:
    """CSS declarations of the palette; ``place`` 0 is light, 1 is dark."""
    return " ".join(f"--{name}: {colours[place]};" for name, colours in PALETTE.items())


def _inline(svg: bytes, name: str, description: str, tooltips: Mapping[str, Sequence[str]]) -> str:
    """Makes matplotlib's file fit for a page: no metadata, unique ids, themed colours."""
    root = ElementTree.fromstring(svg)
    for child in list(root):
        if child.tag.endswith("metadata") or (child.tag.endswith("defs") and _is_style(child)):
            root.remove(child)
    for group, texts in tooltips.items():
        _add_tooltips(root, group, texts)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _localise(element, name)
    box = root.attrib["viewBox"]
    width = float(box.split()[2])
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": box,
            "role": "img",
            "aria-labelledby": f"{name}-title",
            "style": f"max-width: {width * 1.55:.0f}px; stroke-linejoin: round",
        }
    )
    title = ElementTree.Element("title", {"id": f"{name}-title"})
    title.text = description
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def _is_style(element: ElementTree.Element) -> bool:
    return any(child.tag.endswith("style") for child in element)


def _add_tooltips(root: ElementTree.Element, group: str, texts: Sequence[str]) -> None:
    parent = next(element for element in root.iter() if element.get("id") == group)
    marks = [element for element in parent.iter() if element.tag.endswith("use")]
    for mark, text in zip(marks, texts, strict=True):
        ElementTree.SubElement(mark, "title").text = text


def _localise(element: ElementTree.Element, name: str) -> None:
    attributes = element.attrib
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if _XLINK in attributes:
        attributes["href"] = f"#{name}-{attributes.pop(_XLINK).removeprefix('#')}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{name}-")
    if "style" in attributes:
        style = re.sub(r"font-family: [^;]*;?", "", attributes["style"])
        for colour, (light, _) in PALETTE.items():
            style = style.replace(light, f"var(--{colour}, {light})")
        attributes["style"] = style.strip()
    if element.tag == "svg":
        return
    # matplotlib's paths are one command a line; spaces do as well and compress the page.
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
