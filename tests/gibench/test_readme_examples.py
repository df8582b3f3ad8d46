"""The worked examples of attacks/README.md and defenses/README.md, installed and used as written there."""

import re
from pathlib import Path

import pytest
import torch

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.chain import canonical_chain
from gibench.observation import ThreatModel
from gibench.registry import create, find
from gibench.spec import format_chain, parse_chain

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install_example(pip_install, tmp_path, monkeypatch):
    """Install the files shown in a README as a distribution, and make it importable."""

    def install(readme, module):
        files = re.findall(r"^`([\w.]+)`\n```\w+\n(.*?)^```$", (ROOT / readme).read_text(), re.MULTILINE | re.DOTALL)
        assert [name for name, _ in files] == [module, "pyproject.toml"]
        project = tmp_path / "project"
        project.mkdir()
        for name, content in files:
            (project / name).write_text(content)
        monkeypatch.syspath_prepend(str(pip_install(project)))

    return install


def observe(chain):
    """The release of four digits' gradient through the chain."""
    images = create("dataset", "digits").load()
    truth = batches.draw(images, 4, "iid", 1, seeds.generator(0, "data"))
    model = create("model", "linear").build(images.image_shape, images.num_classes)
    defenses = [create("defense", spec) for spec in chain]
    noise = seeds.generator(0, "defense")
    return client.observe(model, images, truth, defenses, ThreatModel(), noise, len(truth))


def test_the_attack_is_found_and_does_what_it_says(install_example):
    install_example("attacks/README.md", "gibench_grey.py")
    assert find("attack", "grey").source == "gibench-grey 1.0"
    context = Context(seeds.generator(0, "attack"), torch.device("cpu"))
    run = create("attack", "grey:level=0.4")(observe(()).observation, context)
    assert run.status == "ok"
    assert run.reconstruction.images.shape == (4, 1, 8, 8)
    assert bool((run.reconstruction.images == 0.4).all())


def test_the_defense_is_found_composes_and_does_what_it_says(install_example):
    install_example("defenses/README.md", "gibench_signs.py")
    assert find("defense", "signs").source == "gibench-signs 1.0"
    chain = canonical_chain(parse_chain("signs:size=0.1+dp"))
    assert format_chain(chain) == "dp+signs:size=0.1"
    release = observe(chain)
    values = torch.cat([tensor.flatten() for tensor in release.observation.gradient().values()])
    torch.testing.assert_close(values.abs(), torch.full_like(values, 0.1))
    assert release.guarantee.accountant == "analytic-gaussian"
    assert release.guarantee.costs["bits_an_entry"] == 1
