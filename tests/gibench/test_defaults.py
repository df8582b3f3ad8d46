"""The file of default settings says what the plugins say, so specs are shortened alike with and without them."""

import subprocess
import sys

from gibench import defaults, registry
from gibench.spec import Spec


def test_the_file_is_what_the_plugins_say():
    assert defaults.kept() == defaults.asked(), "write it anew: make defaults"


def test_specs_are_shortened_alike_by_the_file_and_by_the_plugin(monkeypatch):
    for kind, named in defaults.kept().items():
        for name, settings in named.items():
            specs = [Spec.of(name, settings)]
            specs += [Spec.of(name, {**settings, key: "other"}) for key in settings if key not in registry.GROUPS]
            for spec in specs:
                with monkeypatch.context() as patch:
                    patch.setattr(registry, "_loaded", lambda entry: None)
                    by_file = registry.shorten(kind, spec)
                    patch.setattr(registry, "load", lambda *asked: None)  # nor is it asked at all
                    assert registry.shorten(kind, spec) == by_file
                registry.load(kind, name)
                assert registry.shorten(kind, spec) == by_file


def test_a_former_setting_is_asked_of_the_plugin():
    former = "spearpp:deflation=false,rounds=12"
    assert str(registry.shorten("attack", former)) == "spearpp:without=deflation"


def test_a_spec_of_ours_is_shortened_without_importing_its_plugin():
    program = (
        "import sys\n"
        "from gibench.registry import readable\n"
        "assert readable('attack', 'wrong-gradient:attack=''spearpp:rounds=12''') == 'wrong-gradient:attack=spearpp'\n"
        "assert readable('defense', 'clip+dp:delta=1e-05,noise_multiplier=2.0') == 'clip+dp:noise_multiplier=2.0'\n"
        "assert readable('model', 'mlp:depth=5,width=100') == 'mlp:width=100'\n"
        "assert not {'torch', 'pydantic'} & set(sys.modules)\n"
    ).replace("''spearpp:rounds=12''", "\\'spearpp:rounds=12\\'")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
