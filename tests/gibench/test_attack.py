"""The contract of an attack, beside what whole cells show of it (test_experiment.py)."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gibench import attack, device
from gibench.attack import Attack, Context, Reconstruction
from gibench.errors import AttackError
from gibench.observation import Observation, ThreatModel, Update


def test_calling_an_attack_belongs_to_the_harness():
    with pytest.raises(TypeError, match="Cheat defines __call__, which belongs to the harness: write reconstruct"):

        class Cheat(Attack):
            def __call__(self, observation, context):
                return None


def test_an_attack_without_reconstruct_cannot_be_built():
    class Idle(Attack):
        pass

    with pytest.raises(TypeError, match="reconstruct"):
        Idle()


@pytest.mark.parametrize(("deadline", "expired"), [(None, False), (0.0, True), (float("inf"), False)])
def test_a_context_knows_when_its_deadline_has_passed(deadline, expired):
    assert Context(None, None, deadline).expired() is expired


def observation(value=1.0):
    model, update = nn.Linear(4, 2), Update({"weight": torch.full((2, 4), value)})
    return Observation(model, update, (1, 2, 2), torch.zeros(1), torch.ones(1), 2, ThreatModel())


def context():
    return Context(torch.Generator(), torch.device("cpu"))


class Steady(Attack):
    """Returns grey."""

    def reconstruct(self, observation, context):
        return Reconstruction(torch.full((1, *observation.image_shape), 0.5))


def test_the_clock_covers_the_attack_alone_after_a_warm_up(monkeypatch):
    """Every step takes a time of its own on a clock of this test's, so that the sum tells which were timed."""
    now, order = [0], []

    def taking(seconds, name, function):
        def step(*arguments):
            order.append(name)
            now[0] += seconds
            return function(*arguments)

        return step

    steps = {"warm_up": 100, "synchronize": 10, "non_finite": 1000, "_checked": 10_000}
    for name, seconds in steps.items():
        monkeypatch.setattr(attack, name, taking(seconds, name, getattr(attack, name)))
    monkeypatch.setattr(attack, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Steady, "supports", taking(100_000, "supports", Steady.supports))
    monkeypatch.setattr(Steady, "reconstruct", taking(1, "reconstruct", Steady.reconstruct))
    run = Steady()(observation(), context())
    assert run.status == "ok"
    assert run.runtime_s == 11  # the attack, and the device's finishing of it
    assert order == ["supports", "non_finite", "warm_up", "reconstruct", "synchronize", "_checked"]


def test_an_update_that_is_not_finite_is_no_attack_s_to_try():
    with pytest.raises(AttackError, match="the observed gradient holds NaN or infinity at 'weight': only finite"):
        Steady()(observation(float("nan")), context())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory can be measured on Linux alone")
def test_peak_memory_is_the_attack_s_own():
    """In a process of its own, beside 500 MB of somebody else's, and the same when the attack runs again."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch; from test_attack import Steady, context, observation\n"
        "class Takes(Steady):\n"
        "    def reconstruct(self, observation, context):\n"
        "        pieces = [torch.ones(2**16) for _ in range(800)]\n"  # 200 MB in pieces that the C library keeps
        "        return super().reconstruct(observation, context)\n"
        "ballast, earlier = torch.ones(500 * 2**18), [torch.ones(2**16) for _ in range(800)]\n"
        "del earlier\n"
        "print(*(one()(observation(), context()).peak_memory_mb for one in (Steady, Takes, Steady, Takes)))"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    nothing, much, nothing_again, as_much = map(float, done.stdout.split())
    assert max(nothing, nothing_again) < 20
    assert 190 < much < 230
    assert as_much == pytest.approx(much, abs=10)


def test_where_memory_cannot_be_measured_none_is_claimed(monkeypatch):
    monkeypatch.setattr(device, "_reset_high_water_mark", lambda: False)
    run = Steady()(observation(), context())
    assert (run.status, run.peak_memory_mb) == ("ok", None)
