"""The site: a page a run, the index, and what notebooks hand to them. No kernel starts."""

import base64
import io
import json
import os
import re
import time

import ipywidgets
import numpy as np
import pytest
from bs4 import BeautifulSoup
from pages import (
    XSS,
    Site,
    code,
    displayed,
    failure,
    figure,
    output,
    png,
    recorded,
    references,
    stepped,
    text,
)

from xai_suite.reports import pages, reading
from xai_suite.reports import site as publish
from xai_utils import show


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def soup(html):
    return BeautifulSoup(html, "html.parser")


def body(*cells, title="Look closely"):
    """(soup of the cells, Page) of a notebook in memory."""
    import nbformat.v4 as v4

    made = [v4.new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    html, page = pages.render(v4.new_notebook(cells=made), title)
    return soup(html), page


# --- text stays text ------------------------------------------------------------------------------


def test_a_script_in_what_a_run_brings_along_stays_text(site, monkeypatch):
    frames, tag = [png("red"), png("blue")], "<b onclick='alert(1)'>"  # a file's name has no slash
    cells = [
        code("record()", recorded(monkeypatch, top=XSS)),
        code("step()", stepped(monkeypatch, frames, [XSS, "b"], title=XSS)),
        code("print()", text(XSS)),
        code("1/0", failure(XSS)),
        code("show()", figure(alt=XSS)),
    ]
    site.add(
        "21_cam--xss",
        *cells,
        title=XSS,
        changed=["image"],
        given={"image": f"{tag}.jpg"},
        model=tag,
        error=f"cell 3: {XSS}",
    )
    page, index = site.page("21_cam--xss"), site.index("21_cam--xss")
    for html, least, tags in ((page, 9, 2), (index, 3, 3)):
        assert "<script>alert" not in html and "<b onclick" not in html
        assert len(soup(html).find_all("script")) == 1  # the site's own
        attributes = " ".join(
            str(value) for tag in soup(html).find_all(True) for value in tag.attrs.values()
        )
        assert (soup(html).get_text() + attributes).count(XSS) >= least
        assert (soup(html).get_text() + attributes).count(tag) >= tags
    assert soup(page).title.get_text() == f"CAM: {XSS} · 21_cam--xss"
    assert tag in soup(page).select_one(".parameters").get_text()
    assert soup(page).select_one("figure.stepper output").get_text() == XSS


def test_a_script_in_markdown_reaches_neither_the_page_nor_its_contents():
    html, page = body(
        "# T",
        f"## One {XSS}",
        f"## Two\n\n{XSS}",
        code("md()", output({"text/markdown": f"## {XSS}"})),
    )
    assert not html.find_all("script")
    assert "<script" not in " ".join(entry["html"] for entry in page.toc)


def test_only_the_script_of_the_site_may_run(site):
    site.add("00_start--a")
    html = site.page("00_start--a")
    policy = soup(html).find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert (
        "default-src 'none'" in policy
        and "script-src 'sha256-" in policy
        and "unsafe-inline'; script" in policy
    )
    from base64 import b64encode
    from hashlib import sha256

    script = re.search(r"<script>(.*?)</script>", html, re.S).group(1)
    assert b64encode(sha256(script.encode()).digest()).decode() in policy


# --- nothing from outside -------------------------------------------------------------------------


def test_pages_load_nothing_from_outside(site, monkeypatch):
    html = (
        '<link rel="stylesheet" href="https://a.example/x.css"><script'
        ' src="//a.example/x.js"></script><iframe src="https://a.example"></iframe><img'
        ' src="https://a.example/p.png" alt="a picture"><base href="//a.example"><style>@import'
        " 'https://a.example/y.css'; p { background: url(https://a.example/z.png) }</style><p"
        ' style="background: url(//a.example/q.png); color: red">kept</p><video'
        ' src="https://a.example/v"></video><svg><image href="https://a.example/i.png"></image><use'
        ' xlink:href="//a.example/u.svg#a"></use></svg><table'
        ' background="http://a.example/t.png"><tr><td>1</td></tr></table>'
    )
    site.add(
        "10_saliency--a",
        "![badge](https://a.example/badge.svg) and ![mine](no_such_picture.png)",
        "## Part\n\n" + html,
        code("html()", output({"text/html": html})),
        code("show()", figure()),
        code("step()", stepped(monkeypatch, [png()], ["one"])),
        "[next](20_cam.ipynb#The-idea) [local](../data/x.md)",
    )
    page = site.page("10_saliency--a")
    for tag, url in references(page) + references(site.index("10_saliency--a")):
        assert re.match(r"data:|#|(compare/)?[\w%-]+\.html(#\S+)?$", url), (tag, url)
    found = soup(page)
    assert "kept" in found.get_text() and "a picture" in found.get_text()
    assert found.find("a", string="next")["href"] == "index.html#20_cam"
    assert not found.find("a", string="local") and "local" in found.get_text()


def test_a_link_a_reader_may_follow_stays_and_one_that_runs_something_does_not():
    html, _ = body("[paper](https://a.example/paper) [bad](javascript:alert(1))")
    assert [link["href"] for link in html.find_all("a")] == ["https://a.example/paper"]
    assert "bad" in html.get_text()


def test_a_missing_picture_of_ours_is_warned_about(site, capsys):
    site.add("10_saliency--a", "![mine](no_such_picture.png)")
    site.page("10_saliency--a")
    assert (
        capsys.readouterr().err
        == "warning: 10_saliency--a: picture not found in notebooks/: no_such_picture.png\n"
    )


@pytest.mark.parametrize(
    "html",
    [
        "<x-unknown onclick='alert(1)'>kept</x-unknown>",
        "<p onclick='alert(1)' OnMouseOver=alert(1)>kept</p><script>alert(1)</script>",
        "<a href='javascript:alert(1)'>kept</a>",
        "<a href=' Java&#x53;cript:alert(1)'>kept</a>",
        "<a href='data:text/html,<script>alert(1)</script>'>kept</a>",
        "<a href='//a.example'>kept</a><base href='https://a.example'>",
        "<img src='data:text/html,alert(1)' onerror='alert(1)' alt='kept'>",
        "<img src='data:image/png;base64,AA' srcset='https://a.example/x 2x'>kept",
        "<picture><source srcset='//a.example/x'><img src='//a.example/x' alt='kept'></picture>",
        "<meta http-equiv='refresh' content='0; url=https://a.example'>kept",
        "<iframe src='//a.example'></iframe><iframe srcdoc='<p onclick=alert(1)>'></iframe>kept",
        "<object data='//a.example'></object><embed src='//a.example'>kept",
        "<form action='//a.example'><input type='image' src='//a.example/x'></form>kept",
        "<input autofocus onfocus='alert(1)' formaction='//a.example'>kept",
        "<video poster='//a.example/x'>kept</video><audio src='//a.example/x' autoplay></audio>",
        "<link rel='stylesheet' href='//a.example/x.css'><style>@import '//a.example';</style>kept",
        "<p style='background: url(https://a.example/x)'>kept</p>",
        "<p style='background: u\\72l(//a.example/x)'>kept</p>",
        "<p style='background: /**/URL( &quot;//a.example/x&quot; )'>kept</p>",
        "<p style='background: url(#a), url(//a.example/x)'>kept</p>",
        "<p style='background: image-set(&quot;//a.example/x&quot; 1x)'>kept</p>",
        "<p style='width: expression(alert(1))'>kept</p>",
        "<svg onload='alert(1)'><script>alert(1)</script></svg>kept",
        "<svg><foreignObject><img src='//a.example' onerror='alert(1)'></foreignObject></svg>kept",
        "<svg><image href='//a.example/x'/><use xlink:href='//a.example/x#a'/></svg>kept",
        "<p data-a.onclick='alert(1)'>kept</p>",
        "<math href='javascript:alert(1)'><mi xlink:href='//a.example'>kept</mi></math>",
        "kept<math><mtext><table><mglyph><style><!--</style>"
        "<img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    ],
)
def test_html_neither_loads_nor_runs_anything(html):
    for cell in (code("html()", output({"text/html": html})), html, f"## {html}\n\n{html}"):
        found, page = body(cell)
        for heading in found.find_all("h2"):
            del heading["id"]  # made of its words, and quoted
        made = f"{found} {page.toc[0]['html'] if page.toc else ''}"
        assert "kept" in made and not re.search(r"alert|a\.example", made)


def test_html_between_words_of_markdown_stays_around_them():
    html, page = body("## H<sub>2</sub>O\n\nPress <kbd>Shift</kbd>.")
    assert html.sub.get_text() == "2" and html.kbd.get_text() == "Shift"
    assert page.toc[0]["html"] == "H<sub>2</sub>O"


def test_words_of_a_picture_from_outside_are_only_words():
    found, page = body(code("html()", output({"text/html": f'<img src="//x" alt="{XSS}">'})))
    assert found.select_one(".html").get_text() == XSS and not found.find(["img", "script"])
    assert page.warnings == []


def test_html_of_notebooks_and_widgets_stays_as_it_is(monkeypatch):
    frames = [png("red"), png("blue")]
    step = stepped(monkeypatch, frames, ["one", 'two "2" <b>'], alts=["red", "a > b & c"])
    explorer = (
        '<p role="alert" style="margin: 4px 0; border-left: 4px solid #b00020">no</p>'
        '<div style="display: flex; max-width: 584px"><figure style="width: 280px">'
        '<img alt="cat" loading="lazy" style="max-width: none" src="data:image/png;base64,AA==">'
        '<figcaption style="color: var(--jp-ui-font-color1, inherit)">cat</figcaption></figure>'
        '</div><p role="status">done in <b>3 ms</b>, <mark>marked</mark>: <code>make</code></p>'
        '<span style="width: calc(2 * (1px + 2%)); background: rgb(0, 0, 0)"></span>'
        '<span style="background: url(data:image/png;base64,AA==)"></span>'
    )
    frame = (
        '<table border="1" class="dataframe"><thead><tr style="text-align: right"><th></th>'
        '<th scope="col" colspan="2">drop</th></tr></thead><tbody><tr><th>0</th><td>1</td></tr>'
        "</tbody></table>"
    )
    other = (
        '<progress max="9" value="3"></progress><details open=""><summary>more</summary></details>'
        '<a href="https://a.example" title="a">out</a><a href="mailto:a@b.example">write</a>'
        '<a href="#here">here</a><h3 id="here">here</h3><input type="checkbox" disabled checked>'
    )
    formula = r"\color{red}\frac{\mathbf{a}}{b}\begin{cases} 1 & x > 0 \\ 0 \end{cases}\binom{n}{k}"
    formula = pages.math(formula, "block", pages.Page())
    assert "linethickness" in formula and "mathcolor" in formula and "columnalign" in formula
    for html in (step["data"]["text/html"], explorer, frame, other, formula):
        made = soup(pages.local_only(html, page := pages.Page()))
        for wrapper in made.select("div.scroll"):
            wrapper.unwrap()
        before = soup(html)
        assert [(tag.name, tag.attrs) for tag in made.find_all(True)] == [
            (tag.name, tag.attrs) for tag in before.find_all(True)
        ]
        assert made.get_text() == before.get_text() and page.warnings == []


def test_a_style_element_goes_and_its_table_stays():
    html = "<div><style scoped>.dataframe { color: red }</style><table><tr><td>1</td></tr></table>"
    found, _ = body(code("frame", output({"text/html": html})))
    assert found.select_one(".html").get_text() == "1" and found.td and not found.style


def test_a_drawing_is_a_picture_of_its_own():
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><style>* {{ fill: red }}</style>{XSS}</svg>'
    found, page = body("## A", code("draw()", output({"image/svg+xml": svg})))
    kind, _, data = found.img["src"].partition(",")
    assert kind == "data:image/svg+xml;base64" and base64.b64decode(data).decode() == svg
    assert found.img["alt"] == "Figure: A" and page.warnings == []
    found, page = body(code("html()", output({"text/html": svg})))
    assert "SVG" not in str(found) and "image/svg+xml" in page.warnings[0]


def test_a_link_to_a_notebook_leads_to_its_card_only_if_it_is_ours():
    html, _ = body("[a](../notebooks/20_cam.ipynb#The-idea) [b](https://a.example/20_cam.ipynb)")
    links = [link["href"] for link in html.find_all("a")]
    assert links == ["index.html#20_cam", "https://a.example/20_cam.ipynb"]


def test_headings_that_repeat_have_anchors_of_their_own():
    _, page = body("# T", "## A", "## A-3", "## A", "## A-again", "## A")
    names = [entry["id"] for entry in page.toc]
    assert names[:3] == ["A", "A-3", "A-again"] and len(set(names)) == 5


# --- equations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        r"$x^2$",
        r"$$\frac{\partial S}{\partial A^k_{ij}}$$",
        r"$$\begin{aligned} a &= b \\ c &= d \end{aligned}$$",
        r"\begin{equation} a = b \end{equation}",
        r"$\arg\max_c S_c$",
        r"$\mathrm{ReLU}\left(\sum_k \alpha_k A_k\right)$",
        r"$$M = \begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}$$",
        r"$\lVert x \rVert_2 \sim \mathcal{N}(0, \sigma)$",
    ],
)
def test_equations_become_mathml(source):
    html, page = body(f"Before {source} after")
    assert len(html.find_all("math")) == 1 and page.warnings == []
    assert "$" not in html.get_text() and "\\" not in html.get_text()


def test_equations_in_headings_lists_tables_and_outputs():
    table = "| a | b |\n|---|---|\n| $x_1$ | 2 |"
    latex = code("m()", output({"text/latex": r"$\displaystyle z^2$"}))
    html, page = body("# T", "## The map $M$", "- item $y$", table, latex)
    assert len(html.find_all("math")) == 4 and page.warnings == []
    assert page.toc[0]["id"] == "The-map" and "<math" in page.toc[0]["html"]


def test_an_equation_that_cannot_be_converted_shows_its_source_with_one_warning(site, capsys):
    site.add("10_saliency--a", r"Good $a$ and bad $\nosuchmacro{x} < 1$.")
    found = soup(site.page("10_saliency--a"))
    assert found.select_one("code.tex").get_text() == r"\nosuchmacro{x} < 1"
    assert len(found.find_all("math")) == 1
    assert re.fullmatch(
        r"warning: 10_saliency--a: equation not converted .*nosuchmacro.*\n",
        capsys.readouterr().err,
    )


def test_a_broken_equation_is_named_and_does_not_stop_the_page():
    for broken in (r"\frac{a}", "{", r"\left( a", r"\text{<b>x</b>}"):
        page = pages.Page()
        shown = pages.math(broken, "inline", page)
        assert shown.startswith('<code class="tex">') and "<b>" not in shown
        assert len(page.warnings) == 1 and "()" not in page.warnings[0]


# --- a page ---------------------------------------------------------------------------------------


def test_every_picture_has_words(site, monkeypatch):
    step = stepped(
        monkeypatch, [png("red"), png("blue")], ["one", "two"], alts=["a red field", "a blue field"]
    )
    bare = output({"text/html": '<img src="data:image/png;base64,AAAA">'})
    site.add(
        "10_saliency--a",
        code("show()", figure(alt="The cat's eyes")),
        "## Where it fails",
        code("show()", figure()),
        code("step()", step),
        code("html()", bare),
    )
    images = soup(site.page("10_saliency--a")).find_all("img")
    words = [
        "The cat's eyes",
        "Figure: Where it fails",
        "a red field",
        "a blue field",
        "Figure: Where it fails",
    ]
    assert [image["alt"] for image in images] == words
    assert all(image["alt"] for image in soup(site.index("10_saliency--a")).find_all("img"))


def test_the_words_of_a_figure_stand_below_it_unless_the_run_says_them_beside_it(site):
    said = "grad_cam 3 rectangles,\n  rise 4"
    site.add(
        "10_saliency--a",
        code("show()", figure(alt="The cat's eyes & ears")),
        code("show()", figure()),
        code("show()", figure(alt="grad_cam 3 rectangles, rise 4"), text(f"so: {said}\n")),
        code("show()", figure(alt="A word"), output({"text/markdown": "**Another**, a word"})),
    )
    figures = soup(site.page("10_saliency--a")).select("figure.picture")
    captions = [found.figcaption and found.figcaption.get_text() for found in figures]
    assert captions == ["The cat's eyes & ears", None, None, "A word"]
    assert figures[0].img["alt"] == captions[0]
    assert figures[0].figcaption["aria-hidden"] == "true"  # who hears the alt is spared the caption


def test_code_is_folded_and_parameters_come_first(site):
    site.add(
        "10_saliency--a",
        code("first = 1\nsecond = 2", text("hello")),
        code("stub", tags=["exercise"]),
        code("answer", tags=["solution"]),
        changed=["steps"],
        given={"image": "cat", "steps": 64},
    )
    html = site.page("10_saliency--a")
    found = soup(html)
    folds = found.select("details.code")
    assert len(folds) == 2 and not any(fold.has_attr("open") for fold in folds)
    assert folds[1].summary.get_text(" ", strip=True) == "code 2 lines"
    printed = found.select_one("pre.stdout")
    assert printed.get_text() == "hello" and not printed.find_parent("details")
    assert found.select_one(".exercise").get_text(strip=True) == "stub"
    assert not found.select_one("details.solution").has_attr("open")
    table = found.select_one("table.parameters")
    assert (
        html.index("<table")
        == html.index('<table class="parameters"')
        < html.index("details class")
    )
    rows = [
        [cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])]
        for row in table.select("tbody tr")
    ]
    assert rows == [["image", "cat", "picture"], ["steps", "64 changed, default 8", "path points"]]
    assert [row.th.get_text() for row in table.select("tr.changed")] == ["steps"]


def test_printed_columns_stay_columns_and_sentences_wrap(site):
    table = "name        area   drop\ngrad_cam    0.11   0.21\nrandom      0.15   0.80"
    said = "the first  gap, the second  gap, and no third\nonly  one\nnone at all"
    cells = [
        code("table()", text(table)),
        code("words()", text(said)),
        code("line()", text("a  b  c")),
    ]
    site.add("10_saliency--a", *cells)
    kinds = [pre["class"] for pre in soup(site.page("10_saliency--a")).select("pre.stdout")]
    assert kinds == [["stdout", "columns"], ["stdout"], ["stdout"]]


def test_contents_and_title(site):
    site.add("10_saliency--a", "## The *idea*", "### Detail", "#### Too deep", "## The *idea*")
    found = soup(site.page("10_saliency--a"))
    links = found.select(".toc a")
    assert [link.get_text() for link in links] == ["The idea", "Detail", "The idea"]
    assert (
        all(found.find(id=link["href"][1:]) for link in links)
        and len({link["href"] for link in links}) == 3
    )
    assert [heading.get_text() for heading in found.find_all("h1")] == ["Look closely"]


def test_noise_is_left_out_and_words_stay():
    noise = "2026-01-01 10:00:00.1: I tensorflow/core oneDNN\n 50%|████ | 5/10 2it/s\rloss 0.5\n"
    html, _ = body(
        code("go()", text(noise, "stderr"), text("a"), text("b\n")), code("hidden", tags=["hide"])
    )
    assert html.select_one("pre.stderr").get_text().strip() == "loss 0.5"
    assert html.select_one("pre.stdout").get_text() == "ab" and "hidden" not in html.get_text()


def test_wide_tables_scroll_and_a_lone_widget_says_so():
    live = output(
        {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "IntSlider()"}
    )
    frame = output({"text/html": "<table><tr><td>1</td></tr></table>"})
    html, _ = body("|a|b|\n|-|-|\n|1|2|", code("w", live), code("df", frame))
    assert [table.parent["class"] for table in html.find_all("table")] == [["scroll"], ["scroll"]]
    assert "live control" in html.select_one(".note").get_text()


def test_an_error_on_purpose_does_not_say_that_the_run_stopped():
    html, _ = body(code("1/0", failure(), tags=["raises-exception"]), code("2"))
    assert html.select_one(".traceback") and "stopped here" not in html.get_text()


def test_facts_are_complete(site):
    site.add(
        "10_saliency--a",
        commit="abcdef1-dirty",
        computed_on="NVIDIA H200, TF32 off",
        versions={"keras": "3.0", "tensorflow": None},
    )
    facts = {
        item.dt.get_text(): item.dd.get_text()
        for item in soup(site.page("10_saliency--a")).select(".facts div")
    }
    assert facts == {
        "run": "10_saliency--a",
        "model": "tiny",
        "took": "4.2 s",
        "run on": "2026-03-14 09:26",
        "computed on": "NVIDIA H200, TF32 off",
        "commit": "abcdef1-dirty",
        "with": "keras 3.0",
    }


def test_durations():
    known = {
        None: "",
        4.24: "4.2 s",
        42.4: "42 s",
        59.6: "1 min 00 s",
        185: "3 min 05 s",
        3723: "1 h 02 min",
    }
    assert {seconds: publish.duration(seconds) for seconds in known} == known


# --- failures -------------------------------------------------------------------------------------


def test_a_failed_run_is_a_red_card_and_a_page_of_what_there_is(site):
    site.add("10_saliency--good")
    site.page("10_saliency--good")
    site.add(
        "10_saliency--bad",
        "## Got here",
        code("1/0", failure("no such layer")),
        "## Never",
        failed=True,
        error="\x1b[31mcell 3: ValueError: no such layer\x1b[0m\nmore",
    )
    (site.build / "failed" / "10_saliency--bad.log").write_text(
        "\n".join(f"line {i}" for i in range(100))
    )
    site.page("10_saliency--bad")
    names = ["10_saliency--bad", "10_saliency--good"]
    failed = publish.index(site.build, site.site, names)
    assert failed == [("10_saliency--bad", "cell 3: ValueError: no such layer")]
    index = soup((site.site / "index.html").read_text())
    (card,) = index.select(".card.failed")
    assert card.select_one(".error .mono").get_text() == "cell 3: ValueError: no such layer"
    assert (
        card.a["href"] == "10_saliency--bad.html"
        and "1 failed" in index.select_one(".summary").get_text()
    )
    page = soup((site.site / "10_saliency--bad.html").read_text())
    assert "This run failed." in page.select_one(".banner").get_text()
    assert (
        page.find(id=page.select_one(".banner a")["href"][1:]).get_text().strip()
        == "ValueError: no such layer"
    )
    assert (
        page.find("h2", string="Got here")
        and "line 99" in page.get_text()
        and "line 10\n" not in page.get_text()
    )


def test_a_failure_that_left_only_a_log_or_nothing_has_a_card(site):
    (site.build / "failed" / "10_saliency--log.log").write_text("start\nKernel died\n")
    (site.build / "failed" / "10_saliency--cut.ipynb").write_text('{"cells": [')
    assert "Kernel died" in site.page("10_saliency--log")
    assert "Nothing of the notebook was executed" in site.page("10_saliency--cut")
    assert publish.index(
        site.build, site.site, ["10_saliency--log", "10_saliency--cut", "10_saliency--none"]
    ) == [
        ("10_saliency--cut", "failed without a message"),
        ("10_saliency--log", "Kernel died"),
        ("10_saliency--none", "has not been run"),
    ]
    index = soup((site.site / "index.html").read_text())
    assert [bool(card.a) for card in index.select(".card.failed")] == [True, True, False]


def test_the_newer_of_success_and_failure_counts(site):
    good, bad = (
        site.add("10_saliency--a"),
        site.add("10_saliency--a", failed=True, error="cell 1: old"),
    )
    now = time.time()
    os.utime(bad, (now - 60, now - 60))
    assert publish.find(site.build, "10_saliency--a").error == ""
    os.utime(good, (now - 120, now - 120))
    assert publish.find(site.build, "10_saliency--a").error == "cell 1: old"


def test_a_damaged_notebook_takes_neither_the_gallery_nor_the_old_page_down(site):
    site.add("10_saliency--a")
    before = site.page("10_saliency--a")
    (site.build / "10_saliency--a.ipynb").write_text('{"cells": [{}]}')
    out = site.site / "10_saliency--a.html"
    with pytest.raises(ValueError, match=r"10_saliency--a.ipynb is not a notebook: .*$"):
        publish.page(site.build, site.site, "10_saliency--a")
    assert out.read_text() == before
    ((name, error),) = publish.index(site.build, site.site, ["10_saliency--a"])
    assert name == "10_saliency--a" and "is not a notebook" in error
    assert "is not a notebook" in (site.site / "index.html").read_text()


def test_if_rendering_raises_the_old_page_stays(site, monkeypatch):
    site.add("10_saliency--a")
    before = site.page("10_saliency--a")

    def broken(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(pages, "render", broken)
    with pytest.raises(RuntimeError, match="boom"):
        publish.page(site.build, site.site, "10_saliency--a")
    assert (site.site / "10_saliency--a.html").read_text() == before
    assert [path.name for path in site.site.iterdir()] == ["10_saliency--a.html"]


# --- the gallery ----------------------------------------------------------------------------------


def test_pages_of_runs_that_are_gone_are_removed_and_nothing_else(site):
    site.add("10_saliency--a")
    site.page("10_saliency--a")
    other = site.site / "vgg19"
    other.mkdir()
    kept = [other / "10_saliency--b.html", other / "index.html"]
    kept += [site.site / "mine.html"]
    gone = [site.site / "10_saliency--b.html"]
    for path in kept + gone:
        path.write_text(publish.GENERATOR)
    index = soup(site.index("10_saliency--a"))
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
    assert (site.site / "10_saliency--a.html").exists()
    assert [link["href"] for link in index.select(".bar a")] == ["vgg19/index.html"]
    publish.index(site.build, other, [])
    assert [link["href"] for link in soup((other / "index.html").read_text()).select(".bar a")] == [
        "../index.html"
    ]


def test_an_index_is_written_from_cards_and_says_what_is_left(site, monkeypatch):
    site.add("10_saliency--a")
    site.add("10_saliency--b")
    site.page("10_saliency--a")
    names = ["10_saliency--a", "10_saliency--b", "10_saliency--c", "10_saliency--d"]
    failed = publish.index(site.build, site.site, names, {"10_saliency--c"}, {"10_saliency--d"})
    assert failed == []  # what is still to be made has not failed
    found = soup((site.site / "index.html").read_text())
    assert found.select_one("[data-left]")["data-left"] == "2"
    assert "running: 10_saliency--c." in found.select_one("[data-left]").get_text()
    assert [card["class"][1:] for card in found.select(".card")] == [
        [],
        [],
        ["running"],
        ["waiting"],
    ]
    monkeypatch.setattr(publish.reading, "read_notebook", None)  # nothing is read again
    assert publish.index(site.build, site.site, names[:2]) == []
    assert "data-left" not in (site.site / "index.html").read_text()


def test_what_cards_are_found_by(site):
    models = {"model": "../../my nets/mine.keras", "detector": "ssd_mobilenet_v2"}
    given = {"image": "../holiday/Kätzchen.jpg", "techniques": ["smooth_grad", "rise:masks=9"]}
    site.add("21_grad_cam--mine", code("attribution.grad_cam()"), given=given | models)
    site.add("10_saliency--cat", given={"image": "cat", "model": "tiny"})
    found = soup(site.index("21_grad_cam--mine", "10_saliency--cat"))
    saliency, grad_cam = found.select(".card")
    assert json.loads(grad_cam["data-technique"]) == ["smooth_grad", "grad_cam", "rise"]
    assert json.loads(grad_cam["data-picture"]) == ["Kätzchen.jpg"]
    assert json.loads(grad_cam["data-network"]) == ["tiny", "ssd_mobilenet_v2", "mine.keras"]
    assert json.loads(saliency["data-technique"]) == ["saliency"]
    words = f" {grad_cam['data-words']}"
    for word in ("grad", "gradcam", "smoothgrad", "smooth", "katzchen", "mine", "rise", "look"):
        assert f" {word}" in words, word
    assert "holiday" not in words and "my nets" not in words
    choices = {
        select["name"]: [option["value"] for option in select.find_all("option")][1:]
        for select in found.select(".filter select")
    }
    assert choices == {
        "technique": ["saliency", "smooth_grad", "grad_cam", "rise"],
        "picture": ["cat", "Kätzchen.jpg"],
        "network": ["tiny", "ssd_mobilenet_v2", "mine.keras"],
    }
    names = [option.get_text() for option in found.select("select[name=technique] option")]
    assert names == ["any", "saliency", "SmoothGrad", "Grad-CAM", "RISE"]


def test_a_network_is_called_as_its_file(site):
    path = "../../my nets/mine.keras"
    site.add("21_grad_cam--mine", model=path, given={"model": path}, changed=["model"])
    page, index = soup(site.page("21_grad_cam--mine")), soup(site.index("21_grad_cam--mine"))
    facts = {item.dt.get_text(): item.dd.get_text() for item in page.select(".facts div")}
    assert facts["model"] == "mine.keras"
    assert path in page.select_one(".parameters").get_text()  # as the run was given it
    assert path not in index.get_text() and "mine.keras" in index.select_one(".summary").get_text()
    assert index.select_one(".changes").get_text(" ", strip=True) == "model mine.keras"


def test_runs_are_compared_by_pages_that_show_theirs(site):
    big = code("show()", figure(size=(900, 900), mode="RGB"), text("word " * 20_000))
    for name in ("21_grad_cam--cat", "21_grad_cam--hound", "10_saliency--cat"):
        site.add(name, big)
        site.page(name)
    site.add("21_grad_cam--dog", big, model="another")
    site.page("21_grad_cam--dog")
    site.add("21_grad_cam--bad", failed=True, error="cell 3: broken")
    site.page("21_grad_cam--bad")
    other = site.site / "vgg19"
    other.mkdir()
    (other / "index.html").write_text(publish.GENERATOR)
    (other / "21_grad_cam--cat.html").write_text("")
    names = [f"21_grad_cam--{name}" for name in ("cat", "dog", "hound", "bad")]
    names += ["10_saliency--cat"]
    index, folder = soup(site.index(*names)), site.site / "compare"
    links = {link["href"]: link.get_text() for link in index.select(".card .beside-others")}
    assert links == {"compare/21_grad_cam.html": "Compare 4 runs of Grad-CAM"}
    html = (folder / "21_grad_cam.html").read_text()
    frames = [frame["src"] for frame in soup(html).select("iframe")]
    # of one network side by side
    own = [f"../21_grad_cam--{name}.html" for name in ("cat", "hound", "dog")]
    assert frames == [*own, "../vgg19/21_grad_cam--cat.html"]
    assert all((folder / frame).exists() for frame in frames)
    boxes = soup(html).select(".choice input")
    assert [box["value"] for box in boxes] == ["cat", "hound", "dog", "cat, vgg19"]
    assert [box.has_attr("checked") for box in boxes] == [True, True, True, False]
    page = site.site / "21_grad_cam--cat.html"
    assert len(html) < 40_000 < page.stat().st_size
    # where a page's own link leads
    assert soup(page.read_text()).select_one(".tools a")["href"] == "compare/21_grad_cam.html"
    assert "There is one run so far" in (folder / "10_saliency.html").read_text()
    site.index("10_saliency--cat")
    assert [path.name for path in folder.iterdir()] == ["10_saliency.html"]


def test_a_comparison_is_written_again_only_if_it_is_another(site):
    site.add("21_grad_cam--cat")
    site.page("21_grad_cam--cat")
    site.index("21_grad_cam--cat")
    place = site.site / "compare" / "21_grad_cam.html"
    os.utime(place, (1, 1))
    site.index("21_grad_cam--cat")
    assert place.stat().st_mtime == 1
    site.add("21_grad_cam--hound")
    site.page("21_grad_cam--hound")
    site.index("21_grad_cam--cat", "21_grad_cam--hound")
    assert place.stat().st_mtime > 1 and len(soup(place.read_text()).select("iframe")) == 2


def test_comparisons_are_written_again_when_a_site_around_has_other_pages(site):
    name = "21_grad_cam--cat"
    site.add(name)
    site.page(name)
    other = site.site / "vgg19"
    other.mkdir()
    (other / "index.html").write_text(publish.GENERATOR)
    there = [other / f"21_grad_cam--{run}.html" for run in ("one", "two")]
    place = site.site / "compare" / "21_grad_cam.html"
    there[0].write_text("")

    def written():
        assert not publish.lists(site.site, [name])
        publish.index(site.build, site.site, [name])
        assert publish.lists(site.site, [name])
        return [frame["src"] for frame in soup(place.read_text()).select("iframe")]

    own = f"../{name}.html"
    assert written() == [own, "../vgg19/21_grad_cam--one.html"]
    there[1].write_text("")
    shown = written()
    assert shown == [own, *(f"../vgg19/21_grad_cam--{run}.html" for run in ("one", "two"))]
    there[0].unlink()
    assert written() == [own, "../vgg19/21_grad_cam--two.html"]
    place.unlink()
    assert written() == [own, "../vgg19/21_grad_cam--two.html"]
    (other / "20_cam--other.html").write_text("")  # of a notebook that has no report here
    assert publish.lists(site.site, [name])


def test_a_page_of_no_index_leads_to_none(site):
    site.add("bench")
    links = [link["href"] for link in soup(site.page("bench")).find_all("a")]
    assert not [link for link in links if not link.startswith("#")]


def test_the_reference_is_linked_once_it_is_there(site):
    site.add("10_saliency--a")
    site.page("10_saliency--a")
    other = site.site / "vgg19"
    other.mkdir()

    def bar(place):
        html = (place / "index.html").read_text()
        return {link.get_text(): link["href"] for link in soup(html).select(".bar a")}

    publish.index(site.build, site.site, ["10_saliency--a"])
    publish.index(site.build, other, [])
    publish.index(site.build, site.site, ["10_saliency--a"])
    assert bar(site.site) == {"vgg19": "vgg19/index.html"}
    assert publish.lists(site.site, ["10_saliency--a"])
    (site.site / "reference").mkdir()
    (site.site / "reference" / "index.html").write_text(publish.GENERATOR)
    assert not publish.lists(site.site, ["10_saliency--a"])  # so it is written again
    publish.refresh(site.build, site.site)
    publish.index(site.build, other, [])
    reference = {"reference": "reference/index.html"}
    assert bar(site.site) == reference | {"vgg19": "vgg19/index.html"}
    assert bar(other) == {"reference": "../reference/index.html", "default model": "../index.html"}
    assert publish.lists(site.site, ["10_saliency--a"])


def test_an_index_is_refreshed_when_it_lacks_something_and_nobody_writes_it(site):
    index, there = site.site / "index.html", site.site / "reference" / "index.html"
    there.parent.mkdir()
    there.write_text(publish.GENERATOR)
    publish.refresh(site.build, site.site)
    assert not index.exists()
    for name in ("10_saliency--a", "10_saliency--b"):
        site.add(name)
        site.page(name)
    publish.index(site.build, site.site, ["10_saliency--a", "10_saliency--b"])
    there.unlink()
    publish.index(site.build, site.site, [path.stem for path in site.site.glob("*--*.html")])
    there.write_text(publish.GENERATOR)
    publish.refresh(site.build, site.site)
    refreshed = index.read_text()
    assert 'href="reference/index.html"' in refreshed and "2 reports" in refreshed
    publish.refresh(site.build, site.site)
    assert index.read_text() == refreshed
    there.unlink()
    publish.index(
        site.build, site.site, ["10_saliency--a", "10_saliency--b"], waiting=["10_saliency--b"]
    )
    there.write_text(publish.GENERATOR)
    publish.refresh(site.build, site.site)  # whoever makes reports writes it at the end
    assert "data-left" in index.read_text() and "reference/index" not in index.read_text()


def test_cards_that_an_older_version_kept_are_shown(site):
    site.add("10_saliency--a")
    site.page("10_saliency--a")
    kept = site.build / "cards" / "10_saliency--a.json"
    stored = json.loads(kept.read_text())
    for key in ("ended", "techniques", "pictures", "networks"):
        del stored["card"][key]
    kept.write_text(json.dumps(stored))
    assert soup(site.index("10_saliency--a")).select_one(".card h3 a").get_text() == (
        "Saliency Look closely"
    )


def test_the_gallery_of_nothing(site):
    found = soup(site.index())
    assert (
        "No reports yet" in found.get_text()
        and "0 reports" in found.select_one(".summary").get_text()
    )
    assert not found.select(".card")


def test_cards(site, monkeypatch):
    numbers = {name: index for index, name in enumerate(["zebra", "grad_cam", "ox", "cat", "bee"])}
    record = code("record()", recorded(monkeypatch, **numbers))
    site.add("21_grad_cam--b", record, changed=["steps"], given={"steps": 64})
    site.add("00_start--a", seconds=61)
    site.add("new--c", title="")
    found = soup(site.index("new--c", "21_grad_cam--b", "00_start--a", "21_grad_cam--b"))
    assert [part.get_text() for part in found.select(".part h2")] == [
        "Start",
        "Class activation",
        "More",
    ]
    assert [card.h3.get_text() for card in found.select(".card")] == [
        "Start Look closely",
        "Grad-CAM Look closely",
        "New",
    ]
    card = found.select(".card")[1]
    pairs = [(item.dt.get_text(), item.dd.get_text()) for item in card.select(".numbers div")]
    # four, in the notebook's order
    assert pairs == [
        ("zebra", "0"),
        ("Grad-CAM", "1"),
        ("ox", "2"),
        ("cat", "3"),
    ]
    assert card.select_one(".changes").get_text(" ", strip=True) == "steps 64"
    assert card["id"] == "21_grad_cam" and "steps 64" in card["data-words"]
    assert (
        "tiny · 4.2 s · 2026-03-14 09:26 · abcdef1 · keras 3.0"
        in card.select_one(".fine").get_text()
    )
    assert "3 reports · tiny · 1 min 09 s of computing" in re.sub(
        r"\s+", " ", found.select_one(".summary").get_text()
    )


def test_what_took_the_place_of_parameters_stands_in_head_table_and_card(site, monkeypatch):
    bundle = displayed(monkeypatch, show.used, model="vgg19", image="22 pictures of the results")
    assert bundle["text/plain"] == "model: vgg19\nimage: 22 pictures of the results"
    site.add("10_saliency--a", code("used()", output(bundle)), given={"image": "cat", "steps": 8})
    page = soup(site.page("10_saliency--a"))
    rows = page.select("table.parameters tbody tr")
    assert [row.select_one("td .mono").get_text() for row in rows] == [
        "22 pictures of the results",
        "8",
    ]
    card = soup(site.index("10_saliency--a")).select_one(".card")
    assert card.select_one(".fine").get_text(strip=True).startswith("vgg19·")
    assert "tiny" not in card.get_text() and "tiny" not in page.header.get_text()
    assert "22 pictures of the results" in card["data-words"]
    for bad in ("", 3, "two\nlines"):
        with pytest.raises(ValueError, match="used: model must be one line of text"):
            show.used(model=bad)


def test_thumbnails(site, monkeypatch):
    def colour(name):
        from base64 import b64decode
        from io import BytesIO

        from PIL import Image

        data = soup(site.index(name)).select_one(".thumb img")
        picture = Image.open(BytesIO(b64decode(data["src"].partition(",")[2])))
        assert (picture.width, picture.height) == (
            int(data["width"]),
            int(data["height"]),
        ) and picture.width <= 480
        return picture.convert("RGB").getpixel((0, 0)), picture.size

    wide = code("b", figure("blue", size=(960, 480)), tags=["thumbnail"])
    site.add("10_saliency--tagged", code("a", figure("red")), wide)
    (red, _, blue), size = colour("10_saliency--tagged")
    assert blue > 200 > 60 > red and size == (480, 240)
    site.add("10_saliency--first", code("a", figure("red")), code("b", figure("blue")))
    assert colour("10_saliency--first")[0][0] > 200
    site.add(
        "10_saliency--step",
        code("a", stepped(monkeypatch, [png("blue"), png("red")], "ab"), tags=["thumbnail"]),
    )
    assert colour("10_saliency--step")[0][2] > 200
    site.add("10_saliency--clear", code("a", figure((255, 0, 0, 0), mode="RGBA")))
    # what is clear becomes white, not what was under it
    assert min(colour("10_saliency--clear")[0]) > 250
    site.add("10_saliency--none")
    assert (
        soup(site.index("10_saliency--none")).select_one(".thumb").get_text(strip=True)
        == "no picture"
    )
    for damaged in (b"not a picture", png()[:60], png()[:45] + b"\0" * 40):
        assert publish.shrink(damaged) is None


# --- record ---------------------------------------------------------------------------------------


def test_record_keeps_four_digits_and_names_in_order(monkeypatch):
    class Tensor:
        def numpy(self):
            return np.float32(0.25)

    bundle = displayed(
        monkeypatch,
        show.record,
        share=0.123456,
        big=np.float32(12345.6),
        count=np.int64(7),
        yes=np.bool_(1),
        zero=-0.0,
        one=np.array([2.5]),
        tensor=Tensor(),
        top="umbrella",
        tiny=1.234e-12,
    )
    assert bundle[reading.RECORD] == {
        "share": 0.1235,
        "big": 12350.0,
        "count": 7,
        "yes": True,
        "zero": 0.0,
        "one": 2.5,
        "tensor": 0.25,
        "top": "umbrella",
        "tiny": 1.234e-12,
    }
    assert bundle["text/plain"].splitlines()[:3] == ["share = 0.1235", "big = 12350", "count = 7"]
    assert "zero = 0\n" in bundle["text/plain"]


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, None, [1, 2], np.zeros(2), 1j, "", "two\nlines", "x" * 81]
)
def test_record_names_the_value_it_cannot_keep(value):
    with pytest.raises(ValueError, match="record: bad must be"):
        show.record(bad=value)


def test_record_needs_something():
    with pytest.raises(ValueError, match="at least one"):
        show.record()
    with pytest.raises(ValueError, match="'a b' is not a name"):
        show.record(**{"a b": 1})


def test_the_end_is_one_line_in_place_of_a_traceback():
    with pytest.raises(show.Ended, match="^no cat here$") as ended:
        show.end("no cat here")
    assert ended.value._render_traceback_() == ["no cat here"]
    for why in ("", " ", "two\nlines"):
        with pytest.raises(ValueError, match="end: say why in one line"):
            show.end(why)


def test_of_two_records_with_one_name_the_last_wins(site, monkeypatch):
    first, last = recorded(monkeypatch, b=1, a=2), recorded(monkeypatch, b=3)
    path = site.add("10_saliency--a", code("x", first), code("y", last))
    assert list(reading.read_records(reading.read_notebook(path)).items()) == [("b", 3), ("a", 2)]
    assert soup(site.page("10_saliency--a")).select_one("pre.record").get_text() == "b = 1\na = 2"


def test_parameters_of_a_run(site):
    path = site.add(
        "10_saliency--a", changed=["steps"], given={"image": "cat", "steps": 64, "extra": 1.0}
    )
    assert [tuple(row.values()) for row in reading.parameters(reading.read_notebook(path))] == [
        ("image", "cat", "picture", False, "cat"),
        ("steps", "64", "path points", True, "8"),
        ("extra", "1", "", False, ""),
    ]


def test_a_file_that_is_no_notebook(tmp_path):
    for content in ("", "[]", '{"cells": 3}', '{"a": 1}', "\x00"):
        (tmp_path / "x.ipynb").write_text(content)
        with pytest.raises(ValueError, match="x.ipynb is not a notebook"):
            reading.read_notebook(tmp_path / "x.ipynb")


# --- drawings -------------------------------------------------------------------------------------


def drawn_figure(monkeypatch, *tiles, alt="a figure"):
    return output(displayed(monkeypatch, show.figure, show.tiles([tiles]), alt))


def photograph(seed):
    return np.random.default_rng(seed).integers(0, 256, (80, 80, 3)).astype(np.float32)


def test_a_figure_stands_as_a_picture_with_words_and_a_size(monkeypatch):
    shown = drawn_figure(monkeypatch, show.Tile(photograph(0)), alt='a "noise" <b>')
    html, page = body("## A", code("x", shown))
    (image,) = html.select("figure.picture > img")
    drawing = show.read_drawing(image["src"])
    assert (image["alt"], image["loading"]) == ('a "noise" <b>', "lazy")
    assert (int(image["width"]), int(image["height"])) == drawing.shown and not page.warnings
    assert set(shown.data) == {"text/html", "text/plain"}


def test_what_recurs_on_a_page_is_stored_once(monkeypatch):
    again, other = photograph(0), photograph(1)
    frames = [show.tiles([[show.Tile(again, title=title)]]) for title in "ab"]
    outputs = [
        drawn_figure(monkeypatch, show.Tile(again), show.Tile(other), alt="two <pictures>"),
        stepped(monkeypatch, frames, ["one", "two"], alts=["first", "second"], value=1),
        drawn_figure(monkeypatch, show.Tile(photograph(2)), alt="alone"),
    ]
    html, page = body(*(code("x", one) for one in outputs))
    drawings = html.select("svg.drawing")
    assert [one["aria-label"] for one in drawings] == ["two <pictures>", "first", "second"]
    assert [one.get("data-label") for one in drawings] == [None, "one", "two"]
    assert [one.has_attr("hidden") for one in drawings] == [False, True, False]
    assert [image["alt"] for image in html.find_all("img")] == ["alone"]
    content = show.light(show.tiles([[show.Tile(again)]])).layers[0].content
    (shared,) = [part for part in html.select("svg.parts image") if part["href"] == content]
    assert str(html).count(content) == 1
    assert len(html.select(f'use[href="#{shared["id"]}"]')) == 3
    assert not page.warnings
    places = [one["transform"] for one in drawings[0].select("use")]
    source = re.search(r'src="([^"]+)', outputs[0].data["text/html"])[1]
    left, top, width, height = map(int, show.read_drawing(source).layers[0].box)
    assert places[0] == f"translate({left} {top}) scale({width} {height})"


def test_a_foreign_drawing_stays_an_image(monkeypatch):
    good = drawn_figure(monkeypatch, show.Tile(photograph(0)), show.Tile(photograph(0)))
    source = good.data["text/html"]
    bad = source.replace("%3Crect", "%3Cscript%3Ealert(1)%3C/script%3E%3Crect")
    html, _ = body(code("x", output({"text/html": bad})))
    assert not html.select("svg, script") and html.img["src"].count("script") == 2


def test_every_picture_has_a_size_and_waits_until_it_is_near():
    bare = output({"image/png": base64.b64encode(png(size=(60, 40))).decode()})
    small = output(bare.data, **{"image/png": {"width": 30}})
    embedded = output({"text/html": f"<p>{show.picture(png(size=(9, 5)), 'x')}</p>"})
    plain = base64.b64encode(png(size=(7, 3))).decode()
    written = f"![word](data:image/png;base64,{plain})"
    html, _ = body(code("a", bare, small, embedded), written)
    sizes = [(image["width"], image["height"]) for image in html.find_all("img")]
    assert sizes == [("60", "40"), ("30", "20"), ("9", "5"), ("7", "3")]
    assert all(image["loading"] == "lazy" for image in html.find_all("img"))


def test_the_thumbnail_of_a_drawing(site, monkeypatch):
    blue = np.full((40, 40, 3), (0, 0, 255), np.float32)
    shown = drawn_figure(monkeypatch, show.Tile(blue))
    path = site.add("10_saliency--a", code("x", shown, tags=["thumbnail"]))
    from PIL import Image

    content = reading.thumbnail(reading.read_notebook(path))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == show.light(show.tiles([[show.Tile(blue)]])).size
        assert picture.getpixel((picture.width // 2, picture.height // 2)) == (0, 0, 255)


# --- stepper --------------------------------------------------------------------------------------


def test_stepper_html_shows_one_frame_without_any_script(monkeypatch):
    frames = [png("red"), png("green"), png("blue")]
    bundle = displayed(
        monkeypatch, show.stepper, frames, ["1", "<b>2</b>", '"3"'], title="<i>layer</i>", value=1
    )
    html = soup(bundle["text/html"])
    assert [image.has_attr("hidden") for image in html.find_all("img")] == [True, False, True]
    assert [image["alt"] for image in html.find_all("img")] == ["1", "<b>2</b>", '"3"']
    assert html.output.get_text() == "<b>2</b>" and not html.find(["b", "i", "script"])
    slider = html.input
    assert (slider["min"], slider["max"], slider["value"], slider["aria-valuetext"]) == (
        "0",
        "2",
        "1",
        "<b>2</b>",
    )
    assert slider.parent.name == "label" and "<i>layer</i>" in slider.parent.get_text()
    assert bundle["text/plain"] == '<i>layer</i>: 1, <b>2</b>, "3"'
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_drop_down_list_chooses_live_and_a_slider_in_the_report(monkeypatch):
    boxes = []
    real = ipywidgets.VBox
    monkeypatch.setattr(
        ipywidgets, "VBox", lambda children: boxes.append(real(children)) or boxes[-1]
    )
    frames = [png("red"), png("green"), png("blue")]
    bundle = displayed(
        monkeypatch, show.stepper, frames, ["dog", "bird", "bird"], title="box", dropdown=True
    )
    assert soup(bundle["text/html"]).input["type"] == "range"
    choice, image = boxes[0].children
    assert [label for label, _ in choice.options] == ["dog", "bird", "bird"]
    for chosen, alt in ((0, "dog"), (2, "bird")):
        choice.value = chosen
        shown = soup(image.value).img
        assert shown["alt"] == alt and shown["src"].endswith(
            base64.b64encode(frames[chosen]).decode()
        )


def test_stepper_of_one_frame_needs_no_slider(monkeypatch):
    bundle = displayed(monkeypatch, show.stepper, [png()], ["only"])
    assert "<input" not in bundle["text/html"] and "only" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" not in bundle


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(frames=[], labels=[]), "at least one frame"),
        (dict(frames=[png()], labels=["a", "b"]), "1 frames, 2 labels"),
        (dict(frames=[png()], labels=["a"], alts=[]), "0 alts"),
        (dict(frames=["x"], labels=["a"]), "frame 0 is neither a figure nor PNG"),
        (dict(frames=[png(), b"GIF89a"], labels="ab"), "frame 1 is neither"),
        (dict(frames=[png()], labels=["a"], value=1), "value 1 is not a frame index, 0 to 0"),
        (dict(frames=[png()], labels=["a"], value=-1), "value -1"),
    ],
)
def test_stepper_errors(settings, message):
    with pytest.raises(ValueError, match=f"stepper.*{message}"):
        show.stepper(**settings)
