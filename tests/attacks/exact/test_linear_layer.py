"""The layer that is found, the factors of its gradient, and inputs from them, against planted ones."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gibench.attacks.exact.layers import InputLayer, find_first_linear, find_input_layer, next_linear
from gibench.attacks.exact.linear_layer import match_patterns, solve_inputs
from gibench.attacks.exact.low_rank import factorize

SHAPE = (3, 2, 2)


class Forward(nn.Module):
    """A model whose forward pass is given."""

    def __init__(self, forward, bias=True):
        super().__init__()
        self.first, self.second = nn.Linear(12, 7, bias=bias), nn.Linear(7, 2)
        self.pass_on = forward

    def forward(self, images):
        return self.pass_on(self, images)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FOUND = {
    "torch.flatten": lambda self, x: self.second(F.relu(self.first(torch.flatten(x, 1)))),
    "flatten": lambda self, x: self.second(self.first(x.flatten(1)).relu()),
    "view": lambda self, x: self.second(torch.relu(self.first(x.view(x.size(0), -1)))),
    "reshape": lambda self, x: self.second(F.relu(self.first(x.reshape(x.shape[0], 12)))),
}
REFUSED = {
    "a sum of the input": (lambda self, x: self.first(x.flatten(1) + 1), "begins with add"),
    "a softplus": (lambda self, x: self.second(F.softplus(self.first(x.flatten(1)))), "needs a ReLU right after"),
    "two linear layers": (lambda self, x: self.second(self.first(x.flatten(1))), "Linear is not"),
    "nothing after the layer": (lambda self, x: self.first(x.flatten(1)), "needs a ReLU right after"),
    "a part": (
        lambda self, x: self.second(F.relu(self.first(x[:, :, :1].repeat(1, 1, 2, 1).flatten(1)))),
        "begins with repeat",
    ),
    "the layer twice": (
        lambda self, x: self.second(F.relu(self.first(x.flatten(1)))) + self.first(x.flatten(1))[:, :2],
        "as it is, once",
    ),
    "branches on the input": (lambda self, x: self.first(x.flatten(1)) if x.sum() > 0 else x, "cannot be traced"),
}


@pytest.mark.parametrize("way", FOUND)
def test_the_layer_is_found_however_the_images_are_flattened(way):
    model = Forward(FOUND[way])
    layer = find_input_layer(model, SHAPE)
    assert layer.name == "first"
    assert torch.equal(layer.weight, model.first.weight)
    assert torch.equal(layer.bias, model.first.bias)


def test_the_layer_is_found_behind_an_identity_in_a_nested_model():
    inner = nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 2))
    assert find_input_layer(nn.Sequential(nn.Flatten(), nn.Identity(), inner), SHAPE).name == "2.0"


@pytest.mark.parametrize("model", REFUSED)
def test_a_model_without_such_a_layer_is_refused_with_the_reason(model):
    forward, reason = REFUSED[model]
    assert reason in find_input_layer(Forward(forward), SHAPE)


MOVED = {
    "channels in another order": lambda x: x[:, [2, 0, 1]],
    "rows for columns": lambda x: x.mT,
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "turned and copied": lambda x: x.clone().flip(2).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("way", MOVED)
def test_pixels_that_are_moved_are_found_by_the_column_that_they_enter(way):
    model = Forward(lambda self, x: self.second(F.relu(self.first(MOVED[way](x).flatten(1)))))
    images = torch.rand(5, *SHAPE, generator=generator())
    first, layer = find_first_linear(model, SHAPE), find_input_layer(model, SHAPE)
    assert torch.equal(MOVED[way](images).flatten(1)[:, first.columns], images.flatten(1))
    expected = model.first(MOVED[way](images).flatten(1))
    torch.testing.assert_close(images.flatten(1) @ layer.weight.T + layer.bias, expected)
    of_gradient = layer.of({"first.weight": model.first.weight, "first.bias": model.first.bias})[0]
    assert torch.equal(of_gradient, layer.weight)


def test_a_layer_that_is_called_twice_is_fed_by_more_than_the_images():
    assert find_first_linear(Forward(REFUSED["the layer twice"][0]), SHAPE) is None
    assert find_first_linear(Forward(FOUND["flatten"]), SHAPE).name == "first"


def test_images_that_a_network_writes_over_do_not_enter_as_they_are():
    def doubled(self, x):
        return self.second(F.relu(self.first(x.mul_(2).flatten(1))))

    assert find_first_linear(Forward(doubled), SHAPE) is None


def test_the_search_is_in_the_mode_that_the_client_used_and_leaves_the_model_as_it_was():
    model = nn.Sequential(
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 7), nn.ReLU(), nn.BatchNorm1d(7), nn.Linear(7, 2)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    assert find_first_linear(model, SHAPE) is None
    model[1].eval()
    assert find_first_linear(model, SHAPE).name == "2"
    assert model[4].training
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_layer_that_is_not_fed_the_whole_image_is_refused():
    model = Forward(lambda self, x: self.second(F.relu(self.first(x[..., :2].flatten(1)))))
    assert "takes 12" in find_input_layer(model, (3, 2, 4))


def test_a_next_layer_that_is_called_twice_is_none():
    def twice(self, x):
        return self.second(self.first(x.flatten(1)).relu()) + self.second(x.flatten(1)[:, :7])

    for forward, expected in ((FOUND["flatten"], "second"), (twice, None)):
        model = Forward(forward)
        assert next_linear(model, find_input_layer(model, SHAPE)) == expected


def test_a_convolution_first_is_refused_by_its_name():
    assert "begins with Conv2d" in find_input_layer(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()), SHAPE)


def test_a_layer_without_bias_is_refused_with_the_reason():
    assert "needs a bias in the first linear layer ('first'" in find_input_layer(
        Forward(FOUND["flatten"], bias=False), SHAPE
    )


def test_the_layer_takes_its_own_part_of_a_gradient():
    gradient = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2), "b.weight": torch.zeros(1, 2)}
    layer = InputLayer("a", torch.zeros(2, 3), torch.zeros(2))
    assert layer.of(gradient) == (gradient["a.weight"], gradient["a.bias"])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(40, 90), st.integers(30, 60), st.integers(0, 1000))
def test_factors_satisfy_their_definitions(plant, batch_size, neurons, size, seed):
    planted = plant(batch_size, neurons, size, seed)
    factors = planted.factors()
    eye = torch.eye(batch_size, dtype=torch.float64)
    assert factors.rank == batch_size
    torch.testing.assert_close(factors.basis.T @ factors.basis / neurons, eye, rtol=0, atol=1e-10)
    torch.testing.assert_close(factors.basis @ factors.inputs, planted.weight_gradient, rtol=0, atol=1e-9)
    torch.testing.assert_close(factors.basis @ factors.ones, planted.bias_gradient, rtol=0, atol=1e-9)
    singular_values = torch.linalg.svdvals(planted.weight_gradient)[:batch_size]
    torch.testing.assert_close(factors.singular_values, singular_values, rtol=1e-9, atol=0)


def test_the_rank_is_read_off_a_float32_gradient(plant):
    planted = plant(30, 200, 100)
    factors = factorize(planted.weight_gradient.float(), planted.bias_gradient.float(), generator())
    assert factors.rank == 30
    assert factors.gap > 1e4


@pytest.mark.parametrize("sigma", [1e-8, 1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize("shape", [(20, 200, 300), (3, 500, 60)])
def test_rank_and_noise_level_are_read_off_a_noisy_gradient(plant, sigma, shape):
    factors = plant(*shape, sigma=sigma).factors()
    assert factors.rank == shape[0]
    assert factors.sigma == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(200, 300), (60, 500), (33, 33)])
def test_white_noise_has_no_rank(shape, seed):
    noise = torch.randn(shape, generator=generator(seed))
    assert factorize(noise, noise[:, 0], generator()) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("jump", [1e-2, 1e-4])
def test_images_that_a_trained_network_knows_well_count_as_long_as_rounding_leaves_them(plant, jump, seed):
    planted = plant(20, 200, 300, seed)
    sizes = torch.ones(20, dtype=torch.float64)
    sizes[10:] = jump * torch.logspace(0, -1.5, 10, dtype=torch.float64)  # the widest gap is in the middle
    columns = (planted.columns * sizes).float()
    weight, bias = columns @ planted.inputs.float(), columns.sum(dim=1)
    assert factorize(weight, bias, torch.Generator().manual_seed(0)).rank == 20
    columns[:, 19] *= 1e-9  # far below what rounding leaves of the others
    weight, bias = columns @ planted.inputs.float(), columns.sum(dim=1)
    assert factorize(weight, bias, torch.Generator().manual_seed(0)).rank == 19


def steep(planted, digits):
    """A float32 gradient whose images' parts fall evenly over so many orders of magnitude."""
    sizes = torch.logspace(0, -digits, planted.columns.shape[1], dtype=torch.float64)
    return ((planted.columns * sizes) @ planted.inputs).float()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("digits", [0, 4, 6, 7])
@pytest.mark.parametrize("size", [20, 36])
def test_values_below_what_float32_products_show_are_those_of_a_full_decomposition(plant, digits, size, seed):
    weight = steep(plant(size, 150, 200, seed), digits)
    factors = factorize(weight, weight[:, 0], generator())
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    assert factors.rank == size
    torch.testing.assert_close(factors.singular_values, values[:size], rtol=1e-6, atol=0)
    intrinsic = values[size] / values[:size]  # how far rounding itself has turned each vector, about
    for found, true in ((factors.basis / 150**0.5, left[:, :size]), (factors.inputs.T, right[:size].T)):
        basis = torch.linalg.qr(found).Q
        outside = (true - basis @ (basis.T @ true)).norm(dim=0)
        assert (outside < 0.05 * intrinsic + 1e-12).all()
    free = (150 - size) * (200 - size)
    assert factors.sigma == pytest.approx(float(values[size:].square().sum() / free) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_the_rank_does_not_depend_on_the_scale(plant, scale):
    weight = (plant(20, 150, 200).weight_gradient * scale).float()
    assert factorize(weight, weight[:, 0], generator()).rank == 20


def test_a_gradient_is_factorised_in_pieces(plant, monkeypatch):
    weight = steep(plant(20, 150, 200), 6)
    whole = factorize(weight, weight[:, 0], generator())
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", 1)
    pieces = factorize(weight, weight[:, 0], generator())
    torch.testing.assert_close(pieces.singular_values, whole.singular_values, rtol=1e-9, atol=0)


def test_an_input_of_one_number_has_no_gap():
    weight = torch.randn(50, 1, generator=generator())
    assert factorize(weight, weight[:, 0], generator()) is None


def test_a_zero_gradient_has_no_rank():
    assert factorize(torch.zeros(30, 40), torch.zeros(30), generator()) is None


def test_a_gradient_of_full_rank_has_no_gap(plant):
    planted = plant(40, 60, 40)
    assert factorize(planted.weight_gradient, planted.bias_gradient, generator()) is None


def test_factors_depend_on_the_generator_alone(plant):
    planted = plant(20, 200, 300, sigma=1e-4)
    one, other = planted.factors(), planted.factors()
    assert torch.equal(one.basis, other.basis)
    assert torch.equal(one.inputs, other.inputs)


def test_the_noise_of_a_direction_is_what_planted_noise_does_to_its_column(plant):
    exact = plant(10, 400, 200)
    measured, predicted = [], []
    for seed in range(20):
        noise = 1e-3 * torch.randn(exact.weight_gradient.shape, generator=generator(seed), dtype=torch.float64)
        factors = factorize(exact.weight_gradient + noise, exact.bias_gradient, generator())
        truth = exact.truth(factors)
        outside = exact.columns - factors.basis @ (factors.basis.T @ exact.columns) / 400  # no q reaches this part
        measured.append(outside.norm(dim=0) / (factors.basis.T @ exact.columns / 400).norm(dim=0) / 400**0.5)
        predicted.append(factors.noise(truth.vectors))
    ratio = torch.stack(measured).mean(dim=0) / torch.stack(predicted).mean(dim=0)
    assert (ratio - 1).abs().max() < 0.05


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 10), st.integers(0, 1000))
def test_inputs_are_solved_from_the_true_columns(plant, batch_size, seed):
    planted = plant(batch_size, 80, 50, seed)
    solved, ones = solve_inputs(planted.columns, planted.weight_gradient, planted.bias_gradient[:, None])
    torch.testing.assert_close(solved, planted.inputs, rtol=0, atol=1e-8)
    torch.testing.assert_close(ones, torch.ones(batch_size, 1, dtype=torch.float64), rtol=0, atol=1e-8)


def test_true_inputs_match_the_support_at_every_vote(plant):
    planted = plant(10, 100, 40)
    nothing = torch.zeros(10)
    agree, votes = match_patterns(planted.inputs, ~planted.zeros, planted.layer, nothing, nothing)
    assert votes.all()
    assert agree.all()


def test_a_wrong_entry_of_the_support_disagrees_and_no_other_does(plant):
    planted = plant(10, 100, 40)
    support = ~planted.zeros
    support[3, 4] ^= True
    agree, _ = match_patterns(planted.inputs, support, planted.layer, torch.zeros(10), torch.zeros(10))
    assert (~agree).nonzero().tolist() == [[3, 4]]


@pytest.mark.parametrize("which", ["inputs", "scale"])
def test_neurons_within_the_error_bound_do_not_vote(plant, which):
    planted = plant(10, 100, 40)
    weight, bias = planted.layer.weight, planted.layer.bias
    linear = weight @ planted.inputs.T
    error = torch.full((10,), 0.05, dtype=torch.float64)
    moved = error * (weight.norm(dim=1)[:, None] if which == "inputs" else linear.abs())
    arguments = (error, 0 * error) if which == "inputs" else (0 * error, error)
    agree, votes = match_patterns(planted.inputs, ~planted.zeros, planted.layer, *arguments)
    assert torch.equal(votes, (linear + bias[:, None]).abs() > 4 * moved)
    assert 0 < votes.double().mean() < 1
    assert not (agree & ~votes).any()
