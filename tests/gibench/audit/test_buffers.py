"""BatchNorm's running statistics in a user's update tell the batch's, in every form in which frameworks send them."""

import pytest
import torch
from torch import nn

from gibench import audit, batch_norm
from gibench.audit import run
from gibench.audit.case import Case
from gibench.errors import UsageError
from tests.gibench.audit.conftest import MEAN, SHAPE, STD, pictures, trained

TRAINING = {"batch_size": 8, "lr": 0.1, "local_steps": 1}


def normed():
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 4, 3, stride=3), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(324, 10)).double()


@pytest.fixture(scope="module")
def sent():
    return trained(pictures().double(), model=normed())


@pytest.fixture
def told(monkeypatch, sent):
    """A function that gives what attacks would be shown of BatchNorm's statistics, by what was sent."""
    shown = []

    def attacked(case, *_):
        seen = run.observe.observation_of(case.model, case.update, False, case.protocol, 10, case.buffers)
        shown.append((seen.threat_model.bn_statistics, seen.bn_statistics, case.assumed))
        raise KeyboardInterrupt

    def tell(update, **more):
        monkeypatch.setattr(Case, "attacked", attacked)
        with pytest.raises(KeyboardInterrupt):
            audit(sent.model, update, SHAPE, MEAN, STD, training=TRAINING | more.pop("training", {}), **more)
        return shown[-1]

    return tell


def test_deltas_lists_and_whole_weights_tell_the_statistics_of_the_batch(told, sent):
    due = batch_norm.of_batches(sent.model, [(sent.images - MEAN) / STD])
    received = sent.model.state_dict()
    forms = [
        {"update": sent.delta},
        {"update": list(sent.delta.values())},
        {"update": [each.double().numpy() for each in sent.delta.values()]},  # as means over clients may be
        {"update": sent.after, "weights": received, "kind": "weights"},
        {"update": list(sent.after.values()), "weights": received},
    ]
    for form in forms:
        source, found, assumed = told(**form)
        assert source == "inferred"
        assert set(found) == set(due)
        for name, value in due.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        assert any("buffers moved" in each for each in assumed)


def test_without_buffers_or_in_eval_mode_nothing_is_told(told, sent):
    trainable = {name: sent.delta[name] for name, _ in sent.model.named_parameters()}
    for source, found, assumed in (told(trainable), told(sent.delta, training={"mode": "eval"})):
        assert (source, found) == ("none", None)
        assert not any("buffers" in each for each in assumed)


def test_buffers_that_are_not_finite_are_refused_by_name(sent):
    broken = {**sent.delta, "1.running_var": torch.full((4,), torch.nan)}
    with pytest.raises(UsageError, match=r"NaN or infinity at '1\.running_var' \(4 entries\): leave buffers out"):
        audit(sent.model, broken, SHAPE, MEAN, STD)
