"""The site in a browser: what a person does with it, by mouse and by keyboard, on a phone and in the dark."""

import sys
from dataclasses import replace

import pytest

from gibench.leaderboard.site import build
from gibench.leaderboard.site.rows import Beside, Shown
from tests.leaderboard.chromium import PROGRAM, Chromium
from tests.leaderboard.test_site import HOSTILE, PNG

pytestmark = pytest.mark.skipif(
    PROGRAM is None or sys.platform == "win32", reason="there is no chromium to look at the site with"
)
DP = "dp:delta=1e-05,max_grad_norm=1.0,noise_multiplier={}"
SHOWN = "[...document.querySelectorAll('#summary tbody tr:not(.group)')].filter(row => row.offsetParent !== null)"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HEADING = "[...document.querySelectorAll('#summary thead th')].find(each => each.textContent === {!r})"
PAGES = ("index.html", "map.html", "curves.html", "row")


@pytest.fixture(scope="module")
def browser():
    with Chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(tmp_path_factory, make_stored):
    """A site of three attacks against defenses of two strengths and a hostile one, in batches of two sizes."""
    folder = tmp_path_factory.mktemp("site")
    files = Beside(PNG, b"truth,psnr\n0,9.5\n1,100.0\n2,20.25\n", {"seconds": {"attack": 1.0}})
    cells = [
        (attack, defense, size)
        for size in (4, 16)
        for defense in ("none", *map(DP.format, (1.0, 0.0001)))
        for attack in ("spearpp:preset=ours", "dlg:max_iterations=3000,learning_rate=0.1", "random")
    ]
    rows = [
        make_stored(
            f"{number:032x}",
            **{"attack": attack, "defense": defense, "batch_size": size, "seed": number % 2},
            **{"psnr_median": 5.5 + 9 * ((number * 5) % len(cells)), "control": attack == "random"},
            epsilon=None if defense == "none" else 1 / float(defense.split("=")[-1]),
        )
        for number, (attack, defense, size) in enumerate(cells)
    ]
    rows.append(replace(rows[-1], defense=HOSTILE, reason=HOSTILE, status="failed", run_id="e" * 32))
    build(folder / "site", Shown(rows, "rows", lambda row: files))
    return folder / "site"


def address(site, page):
    return next(iter(sorted((site / "rows").glob("*.html")))) if page == "row" else site / page


def column(browser, heading):
    number = browser.script(HEADING.format(heading) + ".cellIndex")
    return [text.strip() for text in browser.script(f"{SHOWN}.map(row => row.cells[{number}].textContent)")]


def within_groups(browser, heading):
    """The numbers of a column, a list for each scenario."""
    values = [float(text.split()[0]) for text in column(browser, heading)]
    return [values[:9], values[9:]]


def test_it_opens_sorts_and_filters(browser, site):
    """The one quick test of the browser."""
    browser.open(site / "index.html")
    assert len(column(browser, "attack")) == 19
    before = within_groups(browser, "median PSNR dB [95 %]")
    browser.script(HEADING.format("median PSNR dB [95 %]") + ".firstChild.click()")
    assert within_groups(browser, "median PSNR dB [95 %]") == [sorted(each) for each in before]
    browser.script(
        "document.getElementById('filter-attack').value = 'dlg';"
        "document.getElementById('filters').dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert {text.split(":")[0] for text in column(browser, "attack")} == {"dlg"}
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_second_press_sorts_down_a_third_gives_the_order_of_the_page(browser, site):
    browser.open(site / "index.html")
    heading = HEADING.format("median PSNR dB [95 %]")
    before = within_groups(browser, "median PSNR dB [95 %]")
    orders = []
    for _ in range(3):
        browser.script(f"{heading}.firstChild.click()")
        orders.append(
            (browser.script(f"{heading}.getAttribute('aria-sort')"), within_groups(browser, "median PSNR dB [95 %]"))
        )
    up = [sorted(each) for each in before]
    assert orders == [("ascending", up), ("descending", [each[::-1] for each in up]), ("none", before)]


@pytest.mark.slow
def test_every_column_sorts_and_what_is_missing_is_last(browser, site):
    browser.open(site / "index.html")
    headings = browser.script("[...document.querySelectorAll('#summary thead th')].map(each => each.textContent)")
    for heading in headings:
        for direction in ("ascending", "descending"):
            browser.script(HEADING.format(heading) + ".firstChild.click()")
            sorted_by = "[...document.querySelectorAll('#summary th')].map(each => each.getAttribute('aria-sort'))"
            states = [each for each in browser.script(sorted_by) if each]
            assert sorted(states) == sorted([direction, *["none"] * (len(headings) - 1)])
            texts = column(browser, heading)
            for group in (texts[:9], texts[9:]):
                missing = [text == "-" for text in group]
                assert missing == sorted(missing)


@pytest.mark.slow
def test_everything_is_done_with_the_keyboard_too(browser, site):
    """Lines are found by a text, a column is sorted and a row opened."""
    browser.open(site / "index.html")
    browser.script("document.getElementById('filter-text').focus()")
    browser.command("Input.insertText", text="dlg noise_multiplier=0.0001")
    assert {text.split(":")[0] for text in column(browser, "attack")} == {"dlg"}
    assert browser.script("document.getElementById('count').textContent") == "2 of 19 lines"

    def go_to(condition):
        for _ in range(100):
            browser.press("Tab")
            if browser.script(f"(each => {condition})(document.activeElement)"):
                return
        raise AssertionError(f"no Tab leads to {condition}")

    go_to("each.matches('.box')")  # so that arrows scroll it
    go_to("each.tagName === 'BUTTON' && each.textContent === 'attack'")
    assert browser.script("getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press("Enter", text="\r")
    assert browser.script(HEADING.format("attack") + ".getAttribute('aria-sort')") == "ascending"
    go_to("each.tagName === 'A' && each.getAttribute('href').startsWith('rows/')")
    browser.events.clear()
    browser.press("Enter", text="\r")
    browser.wait_for_load()
    assert browser.script("document.querySelector('h1').textContent").startswith("dlg")
    assert browser.script("document.querySelector('img').naturalWidth") == 1
    assert "100.0" in browser.script("document.querySelector('#images').parentElement.textContent")


@pytest.mark.slow
def test_filters_combine_and_are_taken_back(browser, site):
    browser.open(site / "index.html")
    browser.script(
        "for (const [name, value] of [['batch', '16'], ['defense', 'dp'], ['attack', 'random']])"
        " document.getElementById(`filter-${name}`).value = value;"
        "document.getElementById('filters').dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert browser.script("document.getElementById('count').textContent") == "2 of 19 lines"
    assert browser.script("[...document.querySelectorAll('#summary tbody')].filter(each => !each.hidden).length") == 1
    browser.script("document.querySelector('#filters button').click(); new Promise(done => setTimeout(done))")
    assert len(column(browser, "attack")) == 19


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_asks_for_nothing_of_others_and_is_no_wider_than_the_window(browser, site, page, scheme, width):
    browser.size(width, 844)
    browser.prefer(scheme)
    browser.open(address(site, page))
    assert browser.script(WIDER) == 0
    asked = browser.requested()
    assert len(asked) >= 3  # the page, its style and its script
    assert all(each.startswith(site.as_uri()) for each in asked)
    assert browser.complaints() == []
    brightness = "(color => color.match(/[0-9.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0))"
    ground, text = (browser.script(f"{brightness}(getComputedStyle(document.body).{name})") for name in _COLOURS)
    assert (ground > text) == (scheme == "light")
    assert abs(ground - text) > 500  # of 765


_COLOURS = ("backgroundColor", "color")


@pytest.mark.slow
def test_nothing_hostile_is_run(browser, site):
    for page in (
        "index.html",
        "map.html",
        "curves.html",
        *sorted(each.name for each in (site / "rows").glob("*.html")),
    ):
        browser.open(site / page if (site / page).exists() else site / "rows" / page)
        assert not [event for event in browser.events if event.get("method") == "Page.javascriptDialogOpening"]
        assert browser.script("document.querySelectorAll('script').length") == 1
        assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_on_colours_can_be_read(browser, site, scheme):
    """The contrast of every text of the heat map and of the index is at least 4.5 to 1 (WCAG 2.2, AA)."""
    browser.prefer(scheme)
    for page in ("index.html", "map.html", "row"):
        browser.open(address(site, page))
        assert browser.script(_LEAST_CONTRAST) >= 4.5


_LEAST_CONTRAST = """(() => {
  const parts = color => color.match(/[0-9.]+/g).map(Number);
  const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = each => {
    const found = each ? parts(getComputedStyle(each).backgroundColor) : [255, 255, 255];
    return found.length > 3 && found[3] === 0 ? ground(each.parentElement) : found;
  };
  const texts = [...document.querySelectorAll('td, th, p, a, li, h1, h2, label, summary, caption')];
  return Math.min(...texts.filter(each => each.textContent.trim() && each.offsetParent !== null).map(each => {
    const levels = [light(parts(getComputedStyle(each).color)), light(ground(each))].sort((a, b) => b - a);
    return (levels[0] + 0.05) / (levels[1] + 0.05);
  }));
})()"""
