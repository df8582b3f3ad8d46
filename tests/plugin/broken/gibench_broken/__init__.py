"""One class takes a name that is taken, the other is no attack."""

from gibench.attack import Attack, Reconstruction


class AnotherRandom(Attack):
    """Has the name of a built-in."""

    def reconstruct(self, observation, context):
        return Reconstruction(observation.prior.mean[None])


class NoAttack:
    """Fulfils no contract."""
