"""Which defenses stopped every attack in stored rows, by planted ones."""

import pytest

from gibench.audit.defenses import pointers
from gibench.axes import canonical_defense
from gibench.leaderboard.stopped import stopped


@pytest.fixture
def stored(make_stored):
    def make(defense, attack="spearpp:preset=full", exact=0.0, psnr=30.0, **changes):
        changes = {"epsilon": None, "utility_accuracy": None} | changes
        told = {"exact_rate": exact, "psnr_median": psnr, "psnr_mean": psnr} | changes
        return make_stored(defense=canonical_defense(defense), attack=attack, **told)

    return make


def controls(stored, defense, **changes):
    return stored(defense, "mean-image", psnr=10.0, control=True, **changes)


def test_a_defense_counts_by_the_best_attack_on_it_and_by_every_scenario(stored):
    rows = [
        stored("none", exact=1.0, psnr=100.0, utility_accuracy=0.9),
        stored("dp", psnr=9.0, utility_accuracy=0.5, epsilon=4.0),
        stored("dp", "layer-pair:patience=1", psnr=8.0),
        controls(stored, "dp"),
        stored("pruning", psnr=30.0, utility_accuracy=0.8),
        controls(stored, "pruning"),
        stored("clip", exact=0.0),
        stored("clip", "layer-pair:patience=1", exact=0.1),  # one attack sees through it
        stored("quantize", exact=0.0),
        stored("quantize", exact=0.5, batch_size=4),  # one scenario, in which all is open without it
        stored("none", exact=1.0, batch_size=4),
        stored("noise", exact=0.0, train_steps=7),  # where nothing is recovered without it either
        stored("none", exact=0.0, train_steps=7),
    ]
    first, second = stopped(rows)
    assert first["defense"].startswith("dp:")
    assert (first["attack"], first["exact_rate"], first["psnr_median"]) == ("spearpp:preset=full", 0.0, 9.0)
    assert (first["above_control"], first["epsilon"], first["accuracy"], first["without"]) == (False, 4.0, 0.5, 0.9)
    assert second["defense"].startswith("pruning:")
    assert (second["above_control"], second["epsilon"], second["accuracy"]) == (True, None, 0.8)


def test_without_rows_nothing_is_pointed_at():
    assert stopped([]) == []


def test_the_installed_rows_point_at_defenses_that_leave_no_exact_image():
    found = pointers()
    assert found
    assert all(line["exact_rate"] == 0 for line in found)
    assert len({line["defense"] for line in found}) == len(found)
