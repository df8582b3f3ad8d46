"""The contract of an attack, beside what whole cells show of it (test_experiment.py)."""

import pytest

from gibench.attack import Attack, Context


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
