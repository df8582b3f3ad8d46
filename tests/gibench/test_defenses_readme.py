"""The worked example of defenses/README.md, installed and used as written there."""

import re
from pathlib import Path

import pytest
import torch

from gibench import batches, client, seeds
from gibench.chain import canonical_chain
from gibench.observation import ThreatModel
from gibench.registry import create, find
from gibench.spec import format_chain, parse_chain

README = Path(__file__).parents[2] / "defenses" / "README.md"


@pytest.fixture
def example(pip_install, tmp_path, monkeypatch):
    """The files shown in the README as an installed distribution."""
    files = re.findall(r"^`([\w.]+)`\n```\w+\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["gibench_signs.py", "pyproject.toml"]
    project = tmp_path / "project"
    project.mkdir()
    for name, content in files:
        (project / name).write_text(content)
    monkeypatch.syspath_prepend(str(pip_install(project)))


def test_the_example_is_found_composes_and_does_what_it_says(example):
    assert find("defense", "signs").source == "gibench-signs 1.0"
    chain = canonical_chain(parse_chain("signs:size=0.1+dp"))
    assert format_chain(chain) == "dp+signs:size=0.1"
    images = create("dataset", "digits").load()
    truth = batches.draw(images, 4, "iid", 1, seeds.generator(0, "data"))
    model = create("model", "linear").build(images.image_shape, images.num_classes)
    defenses = [create("defense", spec) for spec in chain]
    noise = seeds.generator(0, "defense")
    release = client.observe(model, images, truth, defenses, ThreatModel(), noise, len(truth))
    values = torch.cat([tensor.flatten() for tensor in release.observation.gradient().values()])
    torch.testing.assert_close(values.abs(), torch.full_like(values, 0.1))
    assert release.guarantee.accountant == "analytic-gaussian"
    assert release.guarantee.costs["bits_an_entry"] == 1
