"""The LaTeX is whole: braces and environments balance, every line has as many fields, nothing is read as a command."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.leaderboard.latex import PACKAGES, code, escaped, to_latex
from gibench.leaderboard.sections import of_summary
from gibench.leaderboard.table import summarize

HOSTILE = r"\input{x} 50% of $5 & #1_a ^~ {} [*] <b> |c| é\u4e2d" + "\u4e2d\x1b\u202e"
COMMANDS = (
    r"\\(begin|end|caption|footnotesize|toprule|midrule|bottomrule|par|smallskip|texttt|textbf|allowbreak|raggedright"
    r"|arraybackslash|textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|usepackage)(?![a-zA-Z])"
)


def latex(rows, columns=None):
    return to_latex(of_summary(summarize(rows), columns))


def assert_whole(text):
    """What LaTeX would stumble over, found without it."""
    bare = re.sub(r"\\[{}$&#_%\\]", "", text)  # what is escaped, and line breaks
    assert bare.count("{") == bare.count("}")
    depth = 0
    for each in re.findall(r"[{}]", bare):
        depth += 1 if each == "{" else -1
        assert depth >= 0
    names = re.findall(r"\\(begin|end)\{(\w+)\}", bare)
    assert [name for what, name in names if what == "begin"].count("table") == text.count(r"\caption")
    open_ones = []
    for what, name in names:
        if what == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert open_ones == []
    assert not re.search(r"\\[a-zA-Z]", re.sub(COMMANDS, "", bare))
    assert not re.search(r"[#_^~]", re.sub(r"\$_\{[^}]*\}\$", "", bare.replace("_{[", "")))
    assert "%" not in bare.partition("\n")[2]  # the rest of the line would be a comment
    assert text.isascii()
    for table in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    assert all(line.count("$") % 2 == 0 for line in re.sub(r"\\\$", "", text).splitlines())


def test_the_best_of_rivals_is_bold_with_its_interval_below(make_stored):
    rows = [make_stored(attack="good", seed=seed, exact_rate=0.5, psnr_median=40.0 + seed) for seed in (0, 1)]
    rows += [make_stored(attack="bad", seed=seed, exact_rate=0.0, psnr_median=30.0) for seed in (0, 1)]
    rows += [
        make_stored(attack="mean-image", control=True, seed=seed, exact_rate=0.0, psnr_median=9) for seed in (0, 1)
    ]
    text = latex(rows)
    assert text.startswith(f"% {PACKAGES}\n")
    assert r"\textbf{40.50}$_{[40.00, 41.00]}$" in text
    assert r" & 30.00$_{[30.00, 30.00]}$ & " in text
    assert r"\texttt{mean-image} & control & 2 / 2 & 0.000$_{[0.000, 0.000]}$" in text
    assert text.count(r"\textbf{0.500}") == 1
    assert_whole(text)


def test_what_is_alone_or_not_above_the_control_is_not_bold(make_stored):
    assert "textbf" not in latex([make_stored()])
    low = [make_stored(attack=attack, exact_rate=0.0, psnr_median=psnr) for attack, psnr in (("a", 8.0), ("b", 7.0))]
    assert "textbf{8.00}" in latex(low)
    assert "textbf{8.00}" not in latex([*low, make_stored(attack="mean-image", control=True, exact_rate=0.0)])


def test_adaptive_attacks_are_compared_among_themselves_and_the_lower_lpips_is_better(make_stored):
    rows = [
        make_stored(attack=attack, adaptive=adaptive, lpips_mean=lpips)
        for attack, adaptive, lpips in (("a", False, 0.3), ("b", False, 0.2), ("c", True, 0.1), ("d", True, 0.15))
    ]
    text = latex(rows, ["attack", "lpips_mean"])
    assert [name for name in ("0.300", "0.200", "0.100", "0.150") if rf"\textbf{{{name}}}" in text] == [
        "0.200",
        "0.100",
    ]


@settings(max_examples=30)
@given(text=st.text(max_size=30))
def test_any_text_is_letters(make_stored, text):
    assert_whole(latex([make_stored(hardware=text, budget=text, status="failed", reason=text, torch=text)]))


def test_hostile_words_are_letters_everywhere(make_stored):
    quoted = HOSTILE.replace("'", "''")
    rows = [
        make_stored(
            attack=f"evil:a='{quoted}'", defense=f"evil:b='{quoted}'", dataset=f"folder:path='{quoted}'",
            model=f"mlp:a='{quoted}'", status="failed", reason=HOSTILE, budget=HOSTILE, hardware=hardware,
        )
        for hardware in (HOSTILE, "another")
    ]  # fmt: skip
    rows[1] = replace(rows[1], seed=1)
    text = latex(rows)
    assert r"\textbackslash{}input\{x\}" in text
    assert_whole(text)
    assert_whole(latex(rows, ["dataset", "model", "hardware", "reason", "knows", "torch"]))


def test_specs_may_be_broken_after_punctuation():
    assert code("dp:a=1,b=2") == (r"\texttt{dp:\allowbreak a=\allowbreak 1,\allowbreak b=\allowbreak 2}")
    assert escaped("[95 %]") == r"{[}95 \%{]}"


def test_no_rows_are_said_to_be_none():
    assert latex([]).endswith("No stored rows.\n")


def test_it_compiles(make_stored, tmp_path):
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("there is no LaTeX here (pdflatex or tectonic), so that it compiles was not tried")
    rows = [make_stored(attack=f"evil:a='{HOSTILE}'", status="failed", reason=HOSTILE), make_stored(seed=1)]
    document = f"\\documentclass{{article}}{PACKAGES}\\begin{{document}}\n{latex(rows)}\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(document)
    options = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in compiler else []
    done = subprocess.run([compiler, *options, "table.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
