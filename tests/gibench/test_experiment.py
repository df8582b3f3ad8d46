"""One cell from its spec to its row: a pure function of the two, whatever happens in it."""

from dataclasses import fields, replace

import pandas as pd
import pytest
import torch

from gibench import experiment, training
from gibench.checks import check
from gibench.datasets.base import Split
from gibench.errors import UsageError
from gibench.experiment import draw, load, run_cell
from gibench.outcome import Facts
from gibench.result import COLUMNS, Row
from gibench.results.document import filled
from gibench.stages import Preparation
from gibench.sweep.suite import Suite

MODEL = "mlp:width=20,depth=2"
pytestmark = pytest.mark.usefixtures("plugins")


def cell(attack, **options):
    suite = {"attack": attack, "model": MODEL, "batch_size": 4, "device": "cpu"} | options
    (only,) = Suite.from_settings("suite", suite).cells()
    return only


def run(attack, progress=lambda message, fraction=None: None, **options):
    return run_cell(cell(attack, **options), progress)


def lasting(row):
    """What must be the same whenever the cell is run."""
    return replace(row, runtime_s=None, peak_memory_mb=None)


def test_a_row_has_every_column_in_order():
    assert list(run("random").row.as_dict()) == [*COLUMNS, "run_id", "started"]


def test_the_mode_is_the_rows_and_of_old_rows_it_is_train():
    norms = {mode: run("random", dataset="digits", model="resnet18", mode=mode).row for mode in ("train", "eval")}
    assert {mode: row.mode for mode, row in norms.items()} == {"train": "train", "eval": "eval"}
    assert norms["train"].grad_norm != norms["eval"].grad_norm
    assert filled(Row, lambda name, column: None)["mode"] == "train"


def test_every_attack_of_a_column_meets_the_same_masks():
    scenario = {"model": "vgg11:width=20", "batch_size": 2, "knows": "nothing"}
    updates = [prepared(attack, **scenario).update.tensors for attack in ("random", "mean-image")]
    assert all(torch.equal(updates[0][name], value) for name, value in updates[1].items())


def prepared(attack, **scenario):
    return Preparation(cell(attack, **scenario), Facts(), lambda *told: None).observe()


def test_a_row_says_what_was_run():
    row = run("mean-image", labels="unique", defense="dp", seed=5).row
    assert (row.status, row.reason) == ("ok", None)
    assert (row.attack, row.dataset, row.model) == ("mean-image", "photos", "mlp:depth=2,width=20")
    assert (row.seed, row.device, row.dtype, row.labels) == (5, "cpu", "float32", "unique")
    assert (row.n_true, row.n_reconstructed, row.duplicate_labels) == (4, 4, 0)
    assert row.delta == 1e-5
    assert row.epsilon > 0
    assert row.grad_norm > 0
    assert 0 <= row.model_accuracy <= 1
    assert row.runtime_s >= 0


def test_duplicate_labels_are_counted():
    assert run("random", labels="same").row.duplicate_labels == 3


@pytest.mark.parametrize("attack", ["random", "global-rng"])
@pytest.mark.parametrize("defense", ["none", "dp"])
def test_the_same_cell_twice_gives_the_same_bits(attack, defense):
    first, second = run(attack, defense=defense), run(attack, defense=defense)
    assert lasting(first.row) == lasting(second.row)
    pd.testing.assert_frame_equal(first.images, second.images, check_exact=True)
    assert first.grid_png == second.grid_png


def test_a_trained_model_is_another_scenario_and_the_same_each_time():
    experiment.trained_model.cache_clear()
    first = run("random", train_steps=30).row
    experiment.trained_model.cache_clear()
    assert lasting(run("random", train_steps=30).row) == lasting(first)
    assert first.model_accuracy > run("random").row.model_accuracy
    assert first.train_steps == 30


def test_accuracy_is_measured_on_images_that_are_neither_attacked_nor_trained_on():
    one = cell("random", train_steps=30)
    state = one.dataset, one.model, 30, one.seed, one.device, one.threads, torch.float32
    model, found = experiment.trained_model(*state)
    images = load(one.dataset)
    splits = {field.name: getattr(images, field.name) for field in fields(images)}
    on = {name: training.accuracy(model, images, split) for name, split in splits.items() if isinstance(split, Split)}
    assert run("random", train_steps=30).row.model_accuracy == found == on.pop("tuning")
    assert found not in on.values()


def test_a_cell_gives_the_same_bits_whatever_the_number_of_threads_around_it():
    found, before = [], torch.get_num_threads()
    for ambient in (1, 2):
        torch.set_num_threads(ambient)
        found.append(run("dlg:max_iterations=3", model="lenet", batch_size=2, threads=2))
    torch.set_num_threads(before)
    assert lasting(found[0].row) == lasting(found[1].row)
    pd.testing.assert_frame_equal(found[0].images, found[1].images, check_exact=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_update_has_the_dtype_that_was_asked_for(dtype):
    from gibench_misbehaving import SEEN

    assert run("inspects", dtype=dtype).row.dtype == dtype
    weights = [tensor for tensor in SEEN if tensor.shape == (20, 3072)]
    assert weights
    sent = getattr(torch, dtype)
    assert {tensor.dtype for tensor in weights} == {sent, torch.promote_types(sent, torch.float32)}  # and the model's


def test_another_seed_gives_another_row():
    assert run("random", seed=0).row.mse_mean != run("random", seed=1).row.mse_mean


def test_the_globals_an_attack_draws_from_are_as_they_were():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run("global-rng")
    assert torch.equal(torch.get_rng_state(), state)


def test_every_attack_of_a_column_sees_the_same_update():
    from gibench_misbehaving import SEEN

    seen = []
    for attack in ("inspects", "random", "inspects"):
        run(attack, defense="dp")
        seen.append([tensor.clone() for tensor in SEEN])
    assert seen[0]
    assert len(seen[0]) == len(seen[2])
    assert all(torch.equal(*pair) for pair in zip(seen[0], seen[2], strict=True))


def truth_in(tensors, one):
    """Whether some tensor holds a true image, as pixels or as the model takes it, or the true labels."""
    truth, images = draw(one), load(one.dataset)
    wanted = torch.cat([truth.images, images.normalize(truth.images)]).flatten(1)
    for tensor in tensors:
        values = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())  # whatever a view is a part of
        if values.numel() == 0 or values.dtype == torch.bool:
            continue
        if values.is_floating_point() and values.numel() % wanted.shape[1] == 0:
            distances = torch.cdist(values.float().reshape(-1, wanted.shape[1]), wanted)
            if bool((distances < 1e-2).any()):
                return True
        if not values.is_floating_point() and values.tolist() == truth.labels.tolist():
            return True
    return False


@pytest.mark.parametrize("defense", ["none", "dp"])
def test_the_truth_cannot_be_reached_from_what_an_attack_is_handed(defense):
    from gibench_misbehaving import SEEN

    run("inspects", defense=defense)
    assert len(SEEN) > 8
    assert not truth_in(SEEN, cell("inspects"))
    assert all(tensor.grad_fn is None for tensor in SEEN)


def test_the_search_for_the_truth_finds_a_planted_one():
    from gibench_misbehaving import SEEN

    truth = draw(cell("inspects")).images
    run("inspects", progress=lambda message, fraction=None: truth)
    assert truth_in(SEEN, cell("inspects"))


def test_labels_are_reached_only_when_granted():
    from gibench_misbehaving import SEEN

    run("inspects", knows="labels")
    assert truth_in([tensor for tensor in SEEN if not tensor.is_floating_point()], cell("inspects"))


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("raises", "ValueError: no luck today"),
        ("exits", "SystemExit: enough"),
        ("wrong-shape", "the attack returned images of shape [1, 3, 33, 32], not ['N', 3, 32, 32]"),
        ("returns-nan", "the attack returned images that hold NaN or infinity"),
        ("returns-anything:what=images", "the attack returned images as list where a tensor is due"),
        ("returns-anything:what=diagnostics", "the attack returned diagnostics as list, not a mapping"),
        ("returns-anything:what=status", "the status 'splendid', not ok, budget_exhausted, diverged"),
        ("returns-anything:what=labels", "the attack returned labels of shape [7] beside 1 images"),
        ("returns-anything:what=claims", "the attack returned certified of torch.float32 where booleans are due"),
        ("returns-anything:what=nothing", "the attack returned NoneType where a Reconstruction is due"),
    ],
)
def test_what_goes_wrong_is_a_failed_row_that_scores_as_grey(attack, reason):
    result = run(attack)
    assert result.row.status == "failed"
    assert reason in result.row.reason
    assert (result.row.n_reconstructed, result.row.exact_rate) == (0, 0)
    assert result.row.mse_mean == pytest.approx(float(((draw(cell(attack)).images - 0.5) ** 2).mean()), rel=1e-5)
    assert "Traceback" in result.provenance["traceback"]


def test_an_attack_that_supports_no_such_model_is_skipped_without_a_score():
    result = run("refuses:needs=resnet")
    assert (result.row.status, result.row.reason) == ("skipped", "this model is not resnet")
    assert result.row.psnr_mean is result.row.runtime_s is result.images is result.grid_png is None


def test_an_attack_that_lacks_knowledge_is_skipped_with_the_mend():
    assert "needs to know prior: grant it with --knows" in run("mean-image", knows="nothing").row.reason


def test_a_defense_that_cannot_apply_is_skipped():
    row = run("random", defense="dp", model="resnet18", batch_size=2).row
    assert row.status == "skipped"
    assert "BatchNorm" in row.reason


def test_an_attack_that_found_nothing_is_ok_and_grey():
    row = run("finds-nothing").row
    assert (row.status, row.n_reconstructed, row.exact_rate) == ("ok", 0, 0)
    assert row.mse_mean == run("raises").row.mse_mean


def test_what_is_exact_is_found_among_all_images_of_its_split():
    exact, nothing = run("analytic", batch_size=1), run("finds-nothing").row
    assert exact.row.exact_rate == exact.row.reidentified_rate == exact.row.recognisable_rate == 1
    assert exact.images["reidentified"].tolist() == [True]
    assert (nothing.reidentified_rate, nothing.recognisable_rate) == (0, 0)


def test_a_divergence_keeps_its_reason_and_diagnostics_are_strict_json():
    result = run("diverges")
    assert (result.row.status, result.row.reason) == ("diverged", "loss is infinite")
    assert result.diagnostics == {"loss": None, "norms": [1.0, None], "steps": 3}


def test_what_diverged_scores_as_grey_whatever_it_returned():
    row = run("diverges").row
    assert row.n_reconstructed == 1
    assert row.mse_mean == run("raises").row.mse_mean


def test_an_attack_that_heeds_its_deadline_is_a_timeout_and_what_it_has_by_then_is_scored(monkeypatch):
    monkeypatch.setattr("gibench.stages.grace", lambda timeout: 3600.0)  # a busy machine may take long to return
    row = run("returns-late", timeout=0.2).row
    assert (row.status, row.n_reconstructed) == ("timeout", 1)
    assert "raise --timeout" in row.reason
    assert row.runtime_s > 0
    assert row.mse_mean != run("raises").row.mse_mean


@pytest.mark.parametrize("attack", ["hangs", "hangs-deaf"])
def test_an_attack_that_hangs_is_stopped(attack):
    row = run(attack, timeout=0.05).row
    assert (row.status, row.n_reconstructed) == ("timeout", 0)
    assert "was stopped: raise --timeout" in row.reason
    assert row.runtime_s >= 2


def test_false_certificates_are_counted():
    row = run("claims").row
    assert (row.certified_rate, row.false_certificates) == (0.5, 2)


def test_ctrl_c_is_no_result():
    with pytest.raises(KeyboardInterrupt):
        run("interrupts")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 521}, "a batch of 521 is more than the 520 images of the private split"),
        ({"batch_size": 11, "labels": "unique"}, "labels=unique has 5 labels to offer"),
        ({"dataset": "folder:path=nowhere"}, "nowhere: give the path of a directory"),
    ],
)
def test_a_cell_that_cannot_be_prepared_is_a_usage_error(options, complaint):
    with pytest.raises(UsageError, match=complaint):
        check(cell("random", **options))


def test_stages_are_timed():
    assert list(run("random").seconds) == ["data", "model", "client", "attack", "scoring"]


def test_progress_is_told_what_is_done():
    told = []
    run("random", progress=lambda message, fraction=None: told.append(message))
    assert told == ["preparing the model", "computing the update", "scoring"]


def test_clients_whose_training_diverges_are_charged_to_no_attack():
    row = run("spearpp", defense="fedavg:epochs=5,lr=1e30").row
    assert (row.status, row.reason) == (
        "diverged",
        "the clients' training left the finite numbers: lower their learning rate",
    )
    assert row.n_reconstructed is row.psnr_mean is None


def test_all_clients_images_are_the_truth_and_scored():
    row = run("mean-image", defense="fedavg:clients=3,epochs=1+pruning").row
    assert (row.status, row.batch_size, row.n_true) == ("ok", 4, 12)
    assert row.epsilon is None


@pytest.mark.parametrize(
    ("defense", "reason"), [("fedavg:local_batch_size=5", "local batches of 5"), ("dp:delta=0.1", "delta=0.1, which")]
)
def test_a_defense_whose_settings_make_no_sense_for_the_data_is_refused_before_anything_runs(defense, reason):
    with pytest.raises(UsageError, match=reason):
        check(cell("mean-image", defense=defense))
