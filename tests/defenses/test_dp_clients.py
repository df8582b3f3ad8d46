"""Client-level DP: whole updates are clipped, and noise is added once to their sum over clients."""

import itertools

import pytest
import torch
from scipy.stats import kstest

from gibench import chain
from gibench.buffers import mean_gradient
from gibench.defense import Batch, DefenseContext
from gibench.registry import create


def flat(tensors):
    return torch.cat([value.flatten() for value in tensors.values()])


def client_level(clients, local="fedavg:epochs=2,lr=0.1", seed=0, **settings):
    """The mean of some clients' updates under client-level DP, without and with fedavg, and each client's own."""
    torch.manual_seed(0)
    model = create("model", "linear").build((3, 8, 8), 5).double()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(5)
    data = [
        Batch(torch.randn(4, 3, 8, 8, generator=generator).double() * 3**number, torch.arange(4) % 5)
        for number in range(clients)
    ]
    maker = [create("defense", local)] if local else []
    context = DefenseContext(torch.Generator().manual_seed(seed), 4, 1000, clients=clients)
    spec = "dp:on=update," + ",".join(f"{key}={value}" for key, value in settings.items())
    arguments = mean_gradient(model), parameters
    own = [flat(chain.run(maker, *arguments, [batch], context)[0].tensors) for batch in data]
    update, training = chain.run([create("defense", spec), *maker], *arguments, data, context)
    return update, training, own


@pytest.mark.parametrize("clients", [1, 3])
def test_client_level_dp_releases_the_mean_of_the_clients_clipped_updates(clients):
    bound = 2.0
    update, training, own = client_level(clients, noise_multiplier=0, max_grad_norm=bound)
    expected = sum(each * min(1, bound / float(each.norm())) for each in own) / clients
    torch.testing.assert_close(flat(update.tensors), expected, rtol=1e-10, atol=1e-14)
    assert (update.kind, training.clients, training.epochs) == ("weight_delta", clients, 2)
    if clients == 3:
        assert own[0].norm() < bound < own[2].norm()


def test_client_level_dp_of_fedsgd_clips_the_whole_gradient():
    update, training, (own,) = client_level(1, local=None, noise_multiplier=0, max_grad_norm=0.1)
    torch.testing.assert_close(flat(update.tensors), own * 0.1 / own.norm())
    assert (update.kind, training) == ("gradient", None)


def test_the_noise_of_client_level_dp_is_added_once_to_the_sum_over_clients():
    clean, noisy = (
        torch.cat(
            [flat(client_level(3, seed=seed, noise_multiplier=by, max_grad_norm=2.0)[0].tensors) for seed in range(20)]
        )
        for by in (0, 1.5)
    )
    noise = (noisy - clean) / (1.5 * 2.0 / 3)
    assert len(noise) == 19_300
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert kstest(noise.numpy(), "norm").pvalue > 0.01


def test_the_mean_is_over_the_public_number_of_clients_and_a_round_without_any_is_noise():
    model = create("model", "linear").build((3, 8, 8), 5).double()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    batches = [Batch(torch.randn(4, 3, 8, 8, generator=generator).double(), torch.arange(4)) for _ in range(3)]

    def sent(present, local):
        context = DefenseContext(torch.Generator().manual_seed(1), 4, 1000, clients=3)
        defenses = [create("defense", spec) for spec in ("dp:on=update,max_grad_norm=0.5", *local)]
        return chain.run(defenses, mean_gradient(model), parameters, batches[:present], context)

    for local, kind in (((), "gradient"), (("fedavg:epochs=1,lr=10",), "weight_delta")):
        found = [sent(present, local) for present in (0, 1, 2, 3)]
        assert {update.kind for update, _ in found} == {kind}
        assert {training and training.clients for _, training in found} == {3 if local else None}
        for one, other in itertools.pairwise(found):
            moved = flat(other[0].tensors) - flat(one[0].tensors)
            assert moved.norm() == pytest.approx(0.5 / 3)  # each is clipped, and the noise is the same
