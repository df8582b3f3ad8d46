"""The picture of networks shows the best row of each side; where attacks never apply stands with the reason."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gibench.errors import UsageError
from gibench.leaderboard import families as page
from gibench.leaderboard.families import draw, families
from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.publish import DIGEST, PICTURE, digest
from gibench.leaderboard.render import NOT_MEASURED, RESULTS
from gibench.leaderboard.skipped import skipped_table
from gibench.leaderboard.table import table
from gibench.result import Result
from gibench.results import Results
from gibench.scoring import grid_png
from gibench.scoring.grid import strips

TRUTH = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
BRIGHT = {"spearpp": 0.1, "layer-pair": 0.3, "dlg": 0.5, "modern": 0.7}  # of what each attack recovers here


def grid_of(name):
    """An image grid of 8 pairs, its recovered images of one brightness and the first of them certified."""
    certified = [True] + [False] * 7
    found = SimpleNamespace(matched=torch.full_like(TRUTH, BRIGHT[name]), images={"certified": certified})
    return grid_png(TRUTH, found)


@pytest.fixture
def rows(make_stored):
    """On a network all attacks ran, on the other ours were skipped; the best are layer-pair and dlg."""

    def made(attack, model="fedavg-cnn", psnr=10.0, exact=0.0, **changes):
        number = len(numbers)
        numbers.append(number)
        shown = {
            "attack": attack,
            "model": model,
            "psnr_mean": psnr,
            "exact_rate": exact,
            "batch_size": 8,
            "defense": "none",
        }
        return make_stored(f"{number:032x}", **shown | {"cell": f"{number:016x}"} | changes)

    numbers = []
    none = {"status": "skipped", "psnr_mean": None, "exact_rate": None, "reason": "no ReLU | after it"}
    return [
        made("spearpp", psnr=50.0),
        made("layer-pair", psnr=40.0, exact=0.5),
        made("dlg", psnr=13.0),
        made("modern", psnr=12.0),
        made("dlg", psnr=90.0, batch_size=1),
        made("modern", psnr=90.0, seed=1),
        made("random", psnr=91.0, control=True),
        made("dlg", psnr=92.0, defense="clip:max_norm=1.0"),
        made("spearpp", "vit-tiny", **none),
        made("layer-pair", "vit-tiny", **none),
        made("spearpp", "vit-tiny", batch_size=1, **none),
        made("modern", "vit-tiny", psnr=9.0),
        made("random", "vit-tiny", control=True, **none),
    ]


def test_of_each_network_the_best_row_of_either_side_is_shown(rows):
    found = list(families(rows))
    assert [(each.model, each.baseline and each.baseline.attack, each.ours and each.ours.attack) for each in found] == [
        ("fedavg-cnn", "dlg", "layer-pair"),
        ("vit-tiny", "modern", None),
    ]
    assert found[1].reason == "no ReLU | after it"


def test_where_no_batch_is_of_the_usual_size_the_largest_below_it_is_shown(make_stored):
    sizes = {1: 90.0, 4: 20.0, 32: 80.0}
    rows = [
        make_stored(
            f"{size:032x}", cell=f"{size:016x}", attack="token-span", defense="none", batch_size=size, psnr_mean=psnr
        )
        for size, psnr in sizes.items()
    ]
    (found,) = families(rows)
    assert found.ours.batch_size == 4


def test_a_grid_comes_apart_into_originals_and_what_was_recovered():
    above, below = strips(grid_of("dlg"))
    assert above.shape == below.shape
    pixels = np.asarray(TRUTH.mul(255).round().byte()).transpose(0, 2, 3, 1)
    wide = above.shape[1] - 4
    for number in range(8):
        left = 4 + number * (wide // 8)
        assert (above[4:68:2, left : left + 64 : 2] == pixels[number]).all()
        assert (below[2:66, left : left + 64] == 128).all()
    assert tuple(below[0, 4]) == (0, 160, 60) == tuple(below[67, 4])


def test_a_panel_has_originals_over_the_best_baselines_images_over_ours(rows, tmp_path):
    def file_of(row):
        file = tmp_path / row.attack
        file.write_bytes(grid_of(row.attack))
        return str(file)

    figure = draw(list(families(rows)), file_of)
    both, theirs = (axes for axes in figure.axes if axes.has_data())
    assert both.get_title() == "fedavg-cnn: dlg 13.0 dB, layer-pair 40.0 dB"
    assert theirs.get_title() == "vit-tiny: modern 9.0 dB, none of ours: no ReLU | after it"
    for axes, levels in ((both, (0.5, 0.3)), (theirs, (0.7, 1.0))):
        shown = np.split(axes.images[0].get_array(), 3)
        assert (shown[0] == strips(grid_of("dlg"))[0]).all()
        assert [int(strip[30, 30, 0]) for strip in shown[1:]] == [round(255 * level) for level in levels]


def test_what_is_not_there_is_one_clear_line(rows, make_stored):
    with pytest.raises(UsageError, match="no row of 8 images or fewer and seed 0: run the suite 'networks' first"):
        draw(list(families([make_stored(batch_size=32, defense="none")])), lambda row: None)
    with pytest.raises(UsageError, match=r"has no image grid here: set GIBENCH_RESULTS"):
        draw(list(families(rows)), lambda row: None)


def test_it_is_drawn_of_published_rows_and_the_grids_of_their_cells(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("GIBENCH_RESULTS", str(tmp_path / "stored"))
    results = Results(experiment="networks", create=True)
    for row in rows:
        if row.attack in BRIGHT:
            results.save(Result(row, None, grid_of(row.attack), {}, {}, {}))
    (tmp_path / RESULTS).mkdir(parents=True)
    file = tmp_path / RESULTS / "networks.csv"
    file.write_text(to_csv(table(rows)), encoding="utf-8")
    page.main(tmp_path)
    assert Image.open(tmp_path / RESULTS / PICTURE).text[DIGEST] == digest(file)


def test_what_was_skipped_stands_with_its_reason_once(rows, tmp_path):
    file = tmp_path / "networks.csv"
    assert skipped_table(file) == NOT_MEASURED
    file.write_text(to_csv(table(rows)), encoding="utf-8")
    lines = [line for line in skipped_table(file).splitlines() if line.startswith("| `")]
    assert lines == [
        r"| `spearpp` | `vit-tiny` | 1, 8 | `no ReLU \| after it` |",
        r"| `layer-pair` | `vit-tiny` | 8 | `no ReLU \| after it` |",
    ]
