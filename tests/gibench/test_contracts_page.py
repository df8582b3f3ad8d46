"""The contract page names every field of what plugins are handed and give, each in its table, and nothing else."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import gibench
from gibench.attack import Attack, Context, Reconstruction
from gibench.datasets.base import Images, Split
from gibench.defense import HOOKS, Batch, Defense, DefenseContext
from gibench.observation import ImagePrior, LocalTraining, Observation, SurrogateData, Update
from gibench.testing.kit import checks
from gibench.threat_model import KNOWLEDGE

PAGE = (Path(gibench.__file__).parent / "CONTRACTS.md").read_text("utf-8")
DESCRIBED = (
    *(Observation, Update, LocalTraining, ImagePrior, SurrogateData, Context, Reconstruction),
    *(Batch, DefenseContext, Images, Split),
)


def section(title):
    return re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def rows(text):
    """The code in the first cell of each row of a table."""
    return [re.findall(r"`(\w+)", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("kind", DESCRIBED)
def test_the_fields_are_those_of_the_class_in_its_order(kind):
    assert [name for (name,) in rows(section(kind.__name__))] == [each.name for each in fields(kind)]


def test_every_class_that_has_a_table_of_fields_is_described_here():
    titles = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    assert sorted(titles) == sorted(kind.__name__ for kind in DESCRIBED)


@pytest.mark.parametrize("kind", [Attack, Defense])
def test_what_is_to_be_written_exists(kind):
    named = [name for names in rows(section(kind.__name__)) for name in names]
    assert [name for name in named if not hasattr(kind, name)] == []
    own = {name for name, value in vars(kind).items() if not name.startswith(("_", "model_")) and callable(value)}
    assert own - set(named) == set()


def test_hooks_and_facts_are_named_in_their_order():
    assert [names[0] for names in rows(section("Defense"))][: len(HOOKS)] == list(HOOKS)
    (line,) = [line for line in section("Attack").splitlines() if line.startswith("| `requires`")]
    assert re.findall(r"`(\w+)`", line)[1:] == list(KNOWLEDGE)


def test_the_kit_is_called_as_it_is_written_there():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(code, found)
    assert found["test_attack"].pytestmark[0].args[1] == list(checks("attack"))
