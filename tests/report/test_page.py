"""The page: what is text stays text, and nothing comes from elsewhere."""

from html.parser import HTMLParser

import pytest

from research.report import page

VOID = {"br", "img", "meta"}


class Reader(HTMLParser):
    """Checks that every element is closed in order, and keeps the text and the attributes."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


NASTY = "<script>alert('x')</script> & \"quoted\""


@pytest.mark.parametrize(
    "made",
    [
        page.paragraph(NASTY),
        page.element("p", "fine", title=NASTY),
        page.section(NASTY, page.paragraph(NASTY)),
        page.table([NASTY], [(NASTY, [[NASTY]])], note=NASTY),
        page.facts([(NASTY, NASTY)]),
        page.figure(page.Figure("f", b"png", NASTY, NASTY, NASTY)),
    ],
)
def test_text_is_escaped_everywhere(made):
    document = page.document(NASTY, made)
    assert "<script" not in document
    reader = Reader()
    reader.feed(document)
    assert not reader.open
    found = "".join(reader.text) + "".join(str(value) for _, value in reader.attributes)
    assert found.count("<script>alert('x')</script>") >= 2  # the title, and where it was put


def test_markup_is_not_escaped_twice():
    inner = page.element("b", "a < b")
    assert page.element("p", inner) == "<p><b>a &lt; b</b></p>"


def test_a_section_without_content_is_left_out():
    assert page.section("Empty", "", page.Html("")) == ""


def test_a_figure_is_inside_the_page():
    made = page.figure(page.Figure("f", b"\x89PNG", "T", "shows", "cannot"))
    assert 'src="data:image/png;base64,iVBORw=="' in made
