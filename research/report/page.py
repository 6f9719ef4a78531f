"""A self-contained HTML page: escaped text, tables, figures as data URIs, its own style sheet."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Html(str):
    """A piece of markup; any other string is text and is escaped before it gets into a page."""

    __slots__ = ()


class Figure(NamedTuple):
    """A figure of a report; `shows` and `cannot` are the two halves of its caption."""

    name: str  # of the file, without .png
    png: bytes
    title: str
    shows: str
    cannot: str


class Report(NamedTuple):
    """What a renderer makes of the records of one run; the first of the tables is the main one."""

    title: str
    body: Html
    tables: dict[str, list[dict]]
    figures: tuple[Figure, ...]


def element(tag: str, *children: str, **attributes: str) -> Html:
    """An HTML element; children that are not `Html` and all attribute values are escaped.

    A trailing underscore in an attribute's name is dropped (`class_`).

    Example:
        >>> element("p", "a < b", element("b", "c"), class_="x")
        '<p class="x">a &lt; b<b>c</b></p>'
    """
    names = "".join(
        f' {name.rstrip("_")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Html(f"<{tag}{names}>{join(children)}</{tag}>")


def join(parts: Iterable[str], separator: str = "") -> Html:
    """One piece of markup from texts (escaped) and markup (as it is); no line ends before a "%".

    Example:
        >>> join(["1 < 2", Html("<br>")], " ")
        '1 &lt; 2 <br>'
    """
    return Html(
        separator.join(
            part if isinstance(part, Html) else html.escape(part).replace(" %", "&nbsp;%")
            for part in parts
        )
    )


def paragraph(*children: str, class_: str | None = None) -> Html:
    """A paragraph."""
    return element("p", *children, **({"class_": class_} if class_ else {}))


def section(title: str, *children: str) -> Html:
    """A section with a heading; empty where it has no children."""
    shown = [child for child in children if child]
    return element("section", element("h2", title), *shown) if shown else Html("")


def table(
    headers: Sequence[str],
    groups: Iterable[tuple[str, Sequence[Sequence[str]]]],
    *,
    text_columns: Iterable[int] = (0,),
    note: str = "",
    narrow: bool = False,
) -> Html:
    """A table in groups of rows, each under its own heading; numbers to the right.

    Args:
        headers: of the columns.
        groups: (heading, rows); an empty heading writes none.
        text_columns: columns set to the left.
        note: a line under the table.
        narrow: as wide as its columns need, not as the page.
    """
    left = set(text_columns)

    def cells(tag: str, row: Sequence[str]) -> Html:
        return join(
            element(tag, cell, **({"class_": "text"} if i in left else {}))
            for i, cell in enumerate(row)
        )

    bodies = []
    for heading, rows in groups:
        lines = [element("tr", cells("td", row)) for row in rows]
        if heading:
            head = element("th", heading, colspan=str(len(headers)), scope="rowgroup")
            lines.insert(0, element("tr", head, class_="group"))
        bodies.append(element("tbody", *lines))
    head = element("thead", element("tr", cells("th", headers)))
    width = {"class_": "narrow"} if narrow else {}
    made = element("div", element("table", head, *bodies, **width), class_="scroll")
    return join([made, paragraph(note, class_="note") if note else ""])


def existing(*made: Figure | None) -> list[Figure]:
    """Those that there was something to draw for."""
    return [item for item in made if item is not None]


def figure(item: Figure) -> Html:
    """A figure with its caption: what it shows, and what it cannot."""
    source = "data:image/png;base64," + base64.b64encode(item.png).decode("ascii")
    image = Html(f'<img src="{source}" alt="{html.escape(f"{item.title} {item.shows}")}">')
    return element(
        "figure",
        image,
        element(
            "figcaption",
            element("b", item.title),
            " ",
            item.shows,
            " ",
            element("span", item.cannot, class_="cannot"),
        ),
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """A list of names and values; pairs without a value are left out."""
    return element(
        "dl",
        *(join([element("dt", name), element("dd", value)]) for name, value in pairs if value),
    )


def document(title: str, body: Html) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{element('title', title)}\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


_STYLE = """
:root { --ink: #22262b; --quiet: #5f666d; --rule: #d8dbde; --accent: #0b5c8a; --warn: #b3261e; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 17px/1.55 Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif; }
main { max-width: 940px; margin: 0 auto; padding: 56px 28px 80px; }
.eyebrow, table, dl, figcaption, .note, .banner {
  font-family: "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
.eyebrow { margin: 0 0 10px; font-size: 13px; color: var(--quiet); }
h1 { font-size: 34px; line-height: 1.18; font-weight: 600; margin: 0 0 18px;
  letter-spacing: -0.01em; text-wrap: balance; }
h2 { font-size: 21px; font-weight: 600; margin: 52px 0 14px; }
p { margin: 0 0 14px; max-width: 42em; }
.verdict { border-left: 3px solid var(--accent); padding: 2px 0 2px 18px; margin: 26px 0 0; }
.verdict p { font-size: 19px; line-height: 1.5; margin: 0 0 10px; }
.verdict p:last-child { margin: 0; }
.verdict .aside { font-size: 16px; color: var(--quiet); }
.banner { font-size: 15px; color: var(--warn); border: 1px solid currentColor; border-radius: 3px;
  padding: 9px 14px; margin: 0 0 22px; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.35;
  font-variant-numeric: tabular-nums lining-nums; }
table.narrow { width: auto; }
table.narrow th:not(:first-child), table.narrow td:not(:first-child) { padding-left: 44px; }
th, td { padding: 6px 0 6px 16px; text-align: right; vertical-align: baseline;
  white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th.text, td.text { text-align: left; }
td.text:last-child { white-space: normal; }
thead th { font-weight: 400; font-size: 13px; color: var(--quiet); vertical-align: bottom;
  white-space: normal; border-bottom: 1px solid var(--ink); }
tbody td { border-bottom: 1px solid var(--rule); }
tr.group th { text-align: left; padding-top: 18px; border-bottom: 1px solid var(--rule);
  font-weight: 600; }
tbody:first-of-type tr.group th { padding-top: 10px; }
td b { font-weight: 700; }
.keep { white-space: nowrap; }
.mute { color: var(--quiet); }
.warn { color: var(--warn); }
.note { font-size: 13px; line-height: 1.5; color: var(--quiet); margin: 10px 0 0; max-width: none; }
.scroll + .scroll, .note + .scroll, .note + figure, .scroll + figure { margin-top: 30px; }
figure { margin: 0 0 40px; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: 14px; line-height: 1.5; margin-top: 10px; max-width: 54em; }
.cannot { color: var(--quiet); }
dl { display: grid; grid-template-columns: 11em 1fr; gap: 5px 16px; font-size: 14px; margin: 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.beside { display: flex; flex-wrap: wrap; gap: 28px 72px; margin-top: 8px; }
.beside > .scroll { margin-top: 0; }
.digits { font: 15px/1.4 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  letter-spacing: 0.12em; white-space: pre; }
.digits mark { background: #fde3d3; color: #9a3412; border-radius: 2px;
  text-decoration: underline; text-underline-offset: 3px; }
@media print {
  body { font-size: 11pt; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } .scroll { overflow: visible; }
  .verdict, .digits mark { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
