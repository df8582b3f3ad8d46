"""Labels are read off the last layer's gradient, on planted batches with repeats."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from gibench.attacks.optimization import class_counts, labels
from gibench.observation import ImagePrior, Observation, SurrogateData, ThreatModel, Update

CLASSES = 10
STRATEGIES = ["counts", "idlg", "analytic", "bias-corrected", "wainakh", "yin"]


def planted(targets, spread=0.1, seed=0):
    """A net with hardly any preference among classes, and the gradient of a batch with these labels."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(len(targets), 20, generator=generator)
    loss = functional.cross_entropy(model(inputs), torch.tensor(targets))
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return model, {name: part for (name, _), part in zip(model.named_parameters(), gradient, strict=True)}


def seen(model, gradient):
    """What a server sees that knows neither the scale of a delta nor anything of the images."""
    return Observation(
        model, Update(gradient), (1, 4, 5), torch.zeros(1), torch.ones(1), CLASSES, ThreatModel(frozenset())
    )


def infer(strategy, observation, count):
    layer = labels.output_layer(observation.model, CLASSES, observation.image_shape)
    general = class_counts.Reference.of(observation, layer)
    return labels.infer(strategy, observation.gradient(), layer, count, general).tolist()


def inferred(strategy, targets, **options):
    return infer(strategy, seen(*planted(targets, **options)), len(targets))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("label", [0, 4, 9])
def test_the_label_of_one_image_is_found(strategy, label):
    assert inferred(strategy, [label]) == [label]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_different_labels_are_all_found(strategy):
    assert inferred(strategy, [7, 1, 3, 8]) == [1, 3, 7, 8]


@pytest.mark.parametrize("strategy", ["counts", "bias-corrected", "wainakh"])
@pytest.mark.parametrize("targets", [[2, 2, 2, 5], [0, 0, 1, 1, 9], [6] * 5, [3, 3, 4, 5, 5]])
def test_repeats_are_counted(strategy, targets):
    assert inferred(strategy, targets, spread=0.02) == sorted(targets)


def test_the_rule_of_yin_asks_each_row_for_its_lowest_entry_and_takes_no_class_twice():
    weight = torch.tensor([[3.0, -0.2], [-0.5, -0.5], [-0.9, 9.0], [0.0, 0.1]])
    gradient = {"0.weight": weight, "0.bias": torch.zeros(4)}
    assert labels.infer("yin", gradient, "0", 2).tolist() == [1, 2]
    assert labels.infer("yin", gradient, "0", 5).tolist() == [0, 1, 2, 2, 3]  # the clearest of them once more


def test_the_analytic_rule_repeats_the_classes_it_sees_in_turn():
    assert inferred("analytic", [2, 2, 2, 5]) == [2, 2, 5, 5]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(5))
def test_as_many_labels_as_images_come_out_even_of_noise(strategy, seed):
    generator = torch.Generator().manual_seed(seed)
    model, gradient = planted([0])
    noise = {name: torch.randn(part.shape, generator=generator) for name, part in gradient.items()}
    found = infer(strategy, seen(model, noise), 7)
    assert len(found) == 7
    assert set(found) <= set(range(CLASSES))


def test_noise_of_any_size_gives_as_many_labels_as_images():
    model, gradient = planted([0])
    generator = torch.Generator().manual_seed(0)
    noise = {name: 1e12 * torch.randn(part.shape, generator=generator) for name, part in gradient.items()}
    assert len(infer("counts", seen(model, noise), 7)) == 7


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_weight_delta_gives_the_labels_of_the_gradient_it_came_from(strategy):
    targets = [1, 4, 4, 6]
    observation = seen(*planted(targets))
    tensors = {name: -0.3 * part for name, part in observation.update.tensors.items()}
    delta = replace(observation, update=Update(tensors, "weight_delta"))
    assert not delta.scale_known
    assert infer(strategy, observation, 4) == infer(strategy, delta, 4)


MANY = [0] * 20 + [1] * 9 + [2] * 7 + [3, 3, 4, 4, 5, 6, 7, 7, 8]  # 45 of ten classes, of which one does not occur


def test_only_counting_is_right_where_nearly_all_classes_occur():
    assert inferred("counts", MANY, spread=0.02) == MANY
    assert inferred("bias-corrected", MANY, spread=0.02) != MANY


@pytest.mark.parametrize("kept", [0.7, 0.5])
def test_classes_are_counted_on_the_entries_that_pruning_left(kept):
    targets = [0, 2, 2, 5, 7, 7, 7, 9]
    model, gradient = planted(targets, spread=0.05)

    def pruned(values):
        least = values.abs().flatten().sort(descending=True).values[int(kept * values.numel()) - 1]
        return torch.where(values.abs() >= least, values, 0.0)

    observation = seen(model, {name: pruned(part) for name, part in gradient.items()})
    assert infer("counts", observation, len(targets)) == targets
    assert infer("bias-corrected", observation, len(targets)) != targets


@pytest.mark.parametrize("factor", [1.0, 0.3, 1e-3])
def test_a_clipped_gradient_gives_the_counts_of_the_whole_one(factor):
    model, gradient = planted([0, 2, 2, 5], spread=0.02)
    observation = seen(model, {name: factor * part for name, part in gradient.items()})
    assert infer("counts", observation, 4) == [0, 2, 2, 5]


def test_a_class_s_own_features_tell_what_the_network_predicts_for_it():
    """Two classes, of which the network has learnt one: its images hardly show in the gradient but in their row."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, CLASSES))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[3, :10] = 0.3
        model[1].bias.zero_()
    inputs = torch.rand(6, 20, generator=torch.Generator().manual_seed(0)) * 0.1
    targets = [3, 3, 3, 3, 8, 8]
    inputs[:4, :10] += 1
    loss = functional.cross_entropy(model(inputs), torch.tensor(targets))
    gradient = dict(zip(("1.weight", "1.bias"), torch.autograd.grad(loss, list(model.parameters())), strict=True))
    assert infer("counts", seen(model, gradient), 6) == targets
    assert infer("bias-corrected", seen(model, gradient), 6) != targets


def test_images_in_general_are_the_surrogates_else_the_prior_else_grey():
    observation = seen(*planted([0]))
    layer = labels.output_layer(observation.model, CLASSES, observation.image_shape)
    grey = torch.full((1, 1, 4, 5), 0.5)
    prior = ImagePrior(torch.rand(1, 4, 5), torch.ones(1, 4, 5))
    public = SurrogateData(torch.rand(3, 1, 4, 5), torch.tensor([0, 1, 2]))
    for images, granted in (
        (grey, {}),
        (prior.mean[None], {"prior": prior}),
        (public.images, {"prior": prior, "surrogate_data": public}),
    ):
        general = class_counts.Reference.of(replace(observation, **granted), layer)
        expected = observation.model(images).softmax(1).mean(0)
        torch.testing.assert_close(general.probabilities.float(), expected, rtol=1e-5, atol=1e-7)
        entered = observation.model[:-1](images).mean(0)
        torch.testing.assert_close(general.features.float(), entered, rtol=1e-5, atol=1e-6)


def test_of_many_surrogates_some_are_looked_at():
    model, entered = nn.Sequential(nn.Flatten(), nn.Linear(20, CLASSES)), []
    model.register_forward_pre_hook(lambda _, arguments: entered.append(len(arguments[0])))
    public = SurrogateData(torch.rand(1300, 1, 4, 5), torch.zeros(1300, dtype=torch.long))
    class_counts.Reference.of(replace(seen(model, {}), surrogate_data=public), "1")
    assert entered == [434]  # every third


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_several_images_in_general_are_normalised_as_the_client_does(mode):
    layers = nn.Flatten(), nn.BatchNorm1d(20), nn.Dropout(0.5), nn.Linear(20, CLASSES)
    model = nn.Sequential(*layers).train(mode == "train")
    public = SurrogateData(torch.rand(30, 1, 4, 5), torch.zeros(30, dtype=torch.long))
    found = class_counts.Reference.of(replace(seen(model, {}), surrogate_data=public), "3")
    flat = public.images.flatten(1)
    spread = flat.var(0, unbiased=False) if mode == "train" else torch.ones(20)
    entered = (flat - (flat.mean(0) if mode == "train" else 0)) / (spread + 1e-5).sqrt()
    torch.testing.assert_close(found.features.float(), entered.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities.float(), model[3](entered).softmax(1).mean(0), rtol=1e-4, atol=1e-6)


def test_looking_at_images_in_general_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, CLASSES)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    class_counts.Reference.of(seen(model, {}), "2")
    assert model.training
    assert not model[2]._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_output_layer_is_the_last_linear_one_with_a_bias_and_an_output_a_class():
    model = nn.Sequential(nn.Linear(4, CLASSES), nn.ReLU(), nn.Linear(CLASSES, CLASSES))
    assert labels.output_layer(model, CLASSES, (1, 1, 4)) == "2"
    model[2].spare = nn.Linear(4, CLASSES)  # which nothing goes through
    assert labels.output_layer(model, CLASSES, (1, 1, 4)) == "2"
    assert labels.output_layer(nn.Sequential(nn.Linear(4, CLASSES, bias=False)), CLASSES, (1, 1, 4)) is None
