"""Each published attack has the values that its docstring's table says."""

import re

import pytest

from gibench.attacks.cocktailparty import CocktailParty
from gibench.attacks.optimization.dlg import DLG
from gibench.attacks.optimization.gradinversion import GradInversion
from gibench.attacks.optimization.idlg import IDLG
from gibench.attacks.optimization.invertinggradients import InvertingGradients
from gibench.attacks.optimization.modern import Modern
from gibench.attacks.optimization.sme import SurrogateModelExtension
from gibench.plugin import format_value

PRESETS = [DLG, IDLG, GradInversion, InvertingGradients, Modern, CocktailParty, SurrogateModelExtension]
NO_SETTING = {("CocktailParty", "schedule")}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_the_docstrings_table_is_what_runs(preset):
    table = dict(re.findall(r"^ *\| (\w+) \| ([^ |]+) \|", preset.__doc__, re.MULTILINE))
    table.pop("setting")
    assert len(table) >= 7
    for key, value in table.items():
        if (preset.__name__, key) not in NO_SETTING:
            assert format_value(getattr(preset(), key)) == value, key


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_every_preset_names_its_paper_and_its_deviations(preset):
    assert preset.references
    assert "Deviations:" in preset.__doc__
