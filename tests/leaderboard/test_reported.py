"""Papers' figures stand beside measured ones, and every line says which it is."""

from gibench.leaderboard.formats import to_markdown
from gibench.leaderboard.reported import COLUMNS, compare, reported
from gibench.leaderboard.table import summarize
from gibench.spec import parse


def shorten(kind, spec):
    """The settings of the test's own are the defaults."""
    return parse(spec).name if spec.endswith("=1") else spec


def measured(make_stored, attack="spearpp:a=1", **changes):
    return make_stored(**{"attack": attack, "defense": "none", "exact_rate": 0.75} | changes)


def test_the_papers_say_what_the_file_holds():
    found = reported().set_index("attack")
    assert found.loc["spear", ["batch_size", "value"]].tolist() == [25, 25]
    assert found.loc["spearpp", ["batch_size", "width", "value"]].tolist() == [210, 4000, 210]
    assert found["paper"].str.contains(r"arXiv \d{4}\.\d{5}").all()


def test_a_figure_stands_above_what_was_measured_of_its_attack(make_stored):
    rows = [
        measured(make_stored, batch_size=64, model="mlp:depth=5,width=1000"),
        measured(make_stored, batch_size=20),
        measured(make_stored, batch_size=20, seed=1, exact_rate=0.25),
        measured(make_stored, "random"),
    ]
    found = compare(summarize(rows), shorten)
    assert list(found) == list(COLUMNS)
    assert found["source"].tolist() == ["reported", "measured here", "measured here"]
    assert found["batch_size"].tolist() == [210, 20, 64]
    assert found["value"].tolist() == [210, 0.5, 0.75]
    assert found["note"].tolist()[1] == "mlp:depth=5, 2 seeds, a processor (2 threads)"


def test_what_is_not_like_what_the_papers_tried_stands_not_beside_them(make_stored):
    changes = [
        {"defense": "dp:delta=1e-05"},
        {"train_steps": 5},
        {"labels": "same"},
        {"attack": "spearpp:a=2"},
        {"status": "skipped"},
    ]
    assert compare(summarize([measured(make_stored, **change) for change in changes]), shorten).empty


def test_a_published_table_ends_with_them(make_stored):
    section = to_markdown(summarize([measured(make_stored)]), shorten).split("###")[-1]
    assert section.startswith(" What papers report, and what was measured here")
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    assert [len(line.split(" | ")) for line in lines] == [9] * 4
    assert lines[2].startswith("| reported | spearpp | images of CIFAR-10's size | 210 | 4000 |")
    assert lines[3].startswith("| measured here | spearpp | photos | 20 | 200 | exact rate | 0.75 | 1.25 |")
    assert "papers" not in to_markdown(summarize([measured(make_stored, "random")]), shorten)
