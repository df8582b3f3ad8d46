"""The pages that newcomers read: links lead somewhere, commands are accepted, tables say what the program does."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from gibench.audit.report import _CODES
from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.cli.app import app
from gibench.leaderboard.publish import pages
from gibench.result import Row, columns_of
from gibench.spec import parse
from gibench.sweep.suite import Suite
from gibench.utility.job import TrialRow

ROOT = Path(__file__).parents[2]
PAGES = {file.relative_to(ROOT).as_posix(): file for file in sorted({*pages(ROOT), *ROOT.glob("*.md")})}
LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = {"mine", "grey", "signs"}  # plugins that a page lets its reader write


def text(page):
    return PAGES[page].read_text(encoding="utf-8")


def prose(page):
    return FENCED.sub("", text(page))


def anchors(page_text):
    """The headings as GitHub links to them."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page_text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(page, heading):
    """The cells of the first table below a heading."""
    below = text(page).split(heading + "\n", 1)[1]
    lines = re.search(r"^\|.*?(?=\n\n|\Z)", below, re.MULTILINE | re.DOTALL)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def broken(page):
    """The links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        if target.is_dir():
            target = target / "README.md"
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


def test_links_are_found_and_a_broken_one_is_told(tmp_path, monkeypatch):
    file = tmp_path / "page.md"
    file.write_text("# A `b` c-d, e\n[x](page.md#a-b-c-d-e) [y](page.md#a) ![z [1]](no.png) [w](#a-b-c-d-e)\n")
    monkeypatch.setitem(PAGES, "page.md", file)
    assert broken("page.md") == ["page.md#a", "no.png"]
    assert sum(len(LINK.findall(prose(page))) for page in PAGES) > 50


def test_every_page_is_linked_from_another():
    linked = {
        (PAGES[page].parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(prose(page))
        if "://" not in link
    }
    assert [page for page, file in PAGES.items() if file not in linked | {ROOT / "README.md"}] == []


def commands():
    """Every call of the program in a page's shell blocks."""
    for page in PAGES:
        for kind, block in FENCED.findall(text(page)):
            if kind == "sh":
                for line in block.replace("\\\n", " ").splitlines():
                    yield from (
                        (page, part.strip()) for part in re.split(r"&&|;", line) if part.strip().startswith("gibench ")
                    )


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_is_one_that_the_program_takes(page, line):
    _, verb, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app).commands[verb]
    if verb == "list":  # takes whatever it is asked about
        return
    given = command.make_context(verb, ["smoke" if each == "$1" else each for each in arguments]).params
    axes = {name: list(given[name]) for name in axes_of(Cell) if given.get(name)}
    if verb == "run" and not {parse(each).name for each in axes["attack"]} & OTHERS:
        defenses = axes.get("defense", [])
        if not any(set(re.split(r"[+:]", each)) & OTHERS for each in defenses):
            assert Suite.from_settings("the page", axes | {"device": ["cpu"]}).cells()


@pytest.mark.parametrize(("written", "name", "settings"), table("gibench/SPECS.md", "what is read:"))
def test_specs_are_read_as_the_page_says(written, name, settings):
    found = parse(written.strip("`"))
    assert found.name == name.strip("`")
    assert ", ".join(f"`{key}` is `{value}`" for key, value in found.settings) == settings


def test_columns_are_named_once_each_with_what_they_say():
    for kind, heading in ((Row, "# The columns of a row"), (TrialRow, "## Training runs")):
        rows = table("gibench/COLUMNS.md", heading)
        assert [name.strip("`") for name, *_ in rows] == [*columns_of(kind), "run_id", "started"]
        says = [says for *_, says in rows]
        assert all(re.fullmatch(r"\S.*\.", each) for each in says)
        assert len(set(says)) == len(says)


def test_the_verbs_are_those_of_the_program():
    named = [re.findall(r"`(\S+)`", verb)[0] for verb, _ in table("gibench/cli/README.md", "# The command line")]
    assert sorted(named) == sorted(typer.main.get_command(app).commands)


@pytest.mark.usefixtures("plugins", "workplace")
def test_exit_codes_are_what_the_page_says(call):
    small = ("--model", "mlp:width=20,depth=2", "--batch-size", 4, "--device", "cpu")
    found = {
        call("run", "--attack", "random", *small).code: "done, and every cell",
        call("run", "--attack", "raises", *small).code: "a cell failed",
        call("run", "--attack", "no-such").code: "the request was wrong",
        call("run", "--attack", "interrupts", *small).code: "Ctrl-C",
        _CODES["LEAKS"]: "`audit`: a certified leak",
        _CODES["SUSPECT"]: "`audit`: a suspect",
    }
    stated = {int(code): means for code, means in table("gibench/cli/README.md", "## Exit codes")}
    assert stated.keys() == found.keys()
    assert [code for code in found if not stated[code].startswith(found[code])] == []


def test_the_readme_is_short_and_begins_with_what_to_do():
    lines = text("README.md").splitlines()
    assert len(lines) <= 120
    assert FENCED.findall(text("README.md"))[0][1].split("\n")[0].startswith("make demo")


def test_the_python_of_the_readme_is_what_the_functions_take():
    (block,) = [block for kind, block in FENCED.findall(text("README.md")) if kind == "python"]
    (arguments,) = re.findall(r"gibench\.run\((.*)\)", block)
    import gibench

    assert inspect.signature(gibench.run).bind(**eval(f"dict({arguments})")).arguments["batch_size"] == 8


@pytest.mark.slow
def test_the_tutorial_runs_as_a_script_without_a_guard(tmp_path):
    blocks = [block for kind, block in FENCED.findall(text("gibench/TUTORIAL.md")) if kind == "python"]
    script = tmp_path / "tutorial.py"
    script.write_text("print('begun')\n" + "\n".join(blocks), encoding="utf-8")
    run = [sys.executable, str(script)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1800)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines.count("begun") == 1  # no worker runs the script again
    assert [line for line in lines if line.startswith("spearpp") and " none " in line]
    assert "unknown attack 'spearp' (did you mean 'spearpp'?)" in lines
    assert lines[-1] == "11"  # of eight cells and four, one is the same
    assert not list(tmp_path.glob("*.png"))
