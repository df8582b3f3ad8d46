"""The scoring rules E4 to E9, one by one."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize

from gibench import scoring
from gibench.attack import Reconstruction
from gibench.result import RECOGNISABLE_PSNR, RECOGNISABLE_SSIM
from gibench.scoring import grid_png, identify, score
from gibench.scoring.identify import reidentified
from gibench.scoring.match import match
from gibench.scoring.metrics import psnr, ssim

SUMMARY = [
    *("n_true", "n_reconstructed", "exact_rate", "certified_rate", "false_certificates"),
    *("psnr_mean", "psnr_median", "psnr_q25", "psnr_q75", "ssim_mean", "lpips_mean", "mse_mean"),
    *("recognisable_rate", "reidentified_rate", "label_accuracy", "labels_found"),
]


def photos(count, side=16):
    """Real tiles of one photograph on the 8-bit grid, `[count, 3, side, side]`."""
    photo = data.astronaut()
    corners = [(y, x) for y in range(0, 480, 48) for x in range(0, 480, 48)][:count]
    tiles = [resize(photo[y : y + 48, x : x + 48], (side, side), anti_aliasing=True) for y, x in corners]
    return torch.tensor(np.array(tiles)).permute(0, 3, 1, 2).mul(255).round().div(255).float()


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_3_cycle_is_undone_exactly():
    truth = photos(3)
    found = score(truth, Reconstruction(truth[[1, 2, 0]]))
    assert found.images["reconstruction"].tolist() == [2, 0, 1]
    assert found.images["mse"].tolist() == [0, 0, 0]
    assert found.summary["psnr_mean"] == 100
    assert found.summary["exact_rate"] == 1
    assert torch.equal(found.matched, truth)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 2**16))
def test_the_assignment_has_the_least_total_error(n_true, n_found, seed):
    generator = np.random.default_rng(seed)
    truth = generator.random((n_true, 1, 2, 2), np.float32)
    images = generator.random((min(n_found, n_true), 1, 2, 2), np.float32)
    matched = match(truth, images)
    pairs = [(row, found) for row, found in enumerate(matched) if found is not None]
    assert sorted(found for _, found in pairs) == list(range(len(images)))

    def total(chosen):
        return sum(np.square(truth[row].astype(float) - images[found]).mean() for row, found in chosen)

    best = min(
        total(zip(rows, range(len(images)), strict=True)) for rows in itertools.permutations(range(n_true), len(images))
    )
    assert total(pairs) == pytest.approx(best)


def test_a_useless_image_does_not_take_an_exact_one_from_its_truth():
    grey = torch.full((3, 8, 8), 0.5)
    detail = (noise(3, 8, 8) - 0.5) / 2
    truth = torch.stack([grey + detail / 2, grey + 2 * detail])  # alike, but the second has more contrast
    images = torch.stack([truth[0], grey])
    squared = (truth[:, None] - images[None]).square().mean((2, 3, 4))
    assert squared[0, 1] + squared[1, 0] < squared[0, 0] + squared[1, 1]  # least total error alone would swap them
    found = score(truth, Reconstruction(images, certified=torch.tensor([True, False])))
    assert found.images["reconstruction"].tolist() == [0, 1]
    assert found.summary["exact_rate"] == 0.5
    assert found.summary["false_certificates"] == 0


def test_identical_true_images_are_each_matched_once():
    truth = photos(1).repeat(4, 1, 1, 1)
    found = score(truth, Reconstruction(truth))
    assert sorted(found.images["reconstruction"]) == [0, 1, 2, 3]
    assert found.summary["exact_rate"] == 1


def test_guessing_more_gains_nothing():
    truth = photos(2)
    wrong = noise(2, 3, 16, 16)
    more = score(truth, Reconstruction(torch.cat([wrong, truth]), certified=torch.ones(4, dtype=torch.bool)))
    fewer = score(truth, Reconstruction(wrong, certified=torch.ones(2, dtype=torch.bool)))
    assert more.images.equals(fewer.images)
    assert more.summary == fewer.summary | {"n_reconstructed": 4}
    assert more.summary["false_certificates"] == 2


@pytest.mark.parametrize("nothing", [None, Reconstruction(torch.zeros(0, 3, 16, 16), torch.zeros(0))])
def test_missing_images_are_mid_grey_and_not_certified(nothing):
    truth = photos(3)
    found = score(truth, nothing, torch.arange(3))
    assert found.images["reconstruction"].isna().all()
    assert not found.images["certified"].any()
    assert torch.equal(found.matched, torch.full_like(truth, 0.5))
    assert found.images["mse"].tolist() == pytest.approx((truth.double() - 0.5).square().mean((1, 2, 3)).tolist())
    assert found.summary["n_reconstructed"] == 0
    assert found.summary["label_accuracy"] == found.summary["labels_found"] == (None if nothing is None else 0)


def test_an_image_that_is_missing_scores_as_grey_beside_those_found():
    truth = photos(3)
    found = score(truth, Reconstruction(truth[[2, 0]], certified=torch.tensor([True, True])))
    assert found.images["reconstruction"].fillna(-1).tolist() == [1, -1, 0]
    assert found.images["exact"].tolist() == [True, False, True]
    assert found.summary["certified_rate"] == pytest.approx(2 / 3)
    assert torch.equal(found.matched[1], torch.full((3, 16, 16), 0.5))


def test_exact_means_every_pixel_within_half_a_grid_step():
    truth = torch.full((2, 1, 8, 8), 100 / 255)
    images = truth.clone()
    images[0] += 0.99 / 510
    images[1, 0, 3, 3] += 1.01 / 510  # one pixel is enough
    found = score(truth, Reconstruction(images))
    assert found.images["exact"].tolist() == [True, False]


def test_images_are_clipped_once():
    truth = torch.ones(1, 1, 8, 8)
    assert score(truth, Reconstruction(truth + 3)).summary["mse_mean"] == 0


def test_mse_of_nearly_exact_images_keeps_its_digits():
    truth = photos(2).clamp(0.1, 0.9)
    found = score(truth, Reconstruction(truth + 1e-6))
    true = (truth.double() - (truth + 1e-6).double()).square().mean((1, 2, 3))
    assert found.images["mse"].tolist() == pytest.approx(true.tolist(), rel=1e-9)


def test_psnr_is_capped_and_mse_is_not():
    assert psnr(0.0) == 100
    assert psnr(1e-12) == 100
    assert psnr(1e-4) == pytest.approx(40)
    assert psnr(1.0) == 0
    found = score(torch.zeros(1, 1, 8, 8), Reconstruction(torch.full((1, 1, 8, 8), 1e-6)))
    assert found.summary["psnr_mean"] == 100
    assert found.summary["mse_mean"] == pytest.approx(1e-12)


def test_ssim_is_that_of_scikit_image():
    first, second = photos(2).numpy().astype(float)
    assert ssim(first, second) == structural_similarity(first, second, channel_axis=0, data_range=1.0)


@pytest.mark.parametrize("side", [3, 4, 5, 6])
def test_ssim_window_shrinks_with_the_image(side):
    first, second = noise(2, 1, side, side).numpy()
    assert ssim(first, first) == pytest.approx(1)
    assert -1 <= ssim(first, second) < 1


def test_ssim_of_images_under_3_px_is_null():
    assert score(noise(2, 1, 2, 2), None).summary["ssim_mean"] is None


def test_the_summary_holds_exactly_the_result_columns_as_plain_numbers():
    truth = photos(4)
    labels = torch.tensor([0, 1, 1, 2])
    images = torch.cat([truth[:2], noise(2, 3, 16, 16)])
    found = score(truth, Reconstruction(images, labels, torch.tensor([True, False, True, False])), labels, truth)
    assert list(found.summary) == SUMMARY
    assert {type(value) for value in found.summary.values()} <= {int, float}
    assert found.summary["exact_rate"] == 0.5
    assert found.summary["certified_rate"] == 0.5
    assert found.summary["false_certificates"] == 1
    assert found.summary["psnr_median"] == pytest.approx(np.median(found.images["psnr"]))
    assert found.summary["psnr_q25"] <= found.summary["psnr_median"] <= found.summary["psnr_q75"]
    columns = ["truth", "reconstruction", "mse", "psnr", "ssim", "lpips", "exact", "certified", "nearest"]
    assert list(found.images) == [*columns, "reidentified"]


def test_near_duplicates_are_told_by_the_nearest_other_image():
    truth = photos(4) / 2
    truth[3] = truth[1]
    truth[3, 0, 0, 0] += 0.5
    nearest = score(truth, None).images["nearest"].tolist()
    pixels = truth.double().numpy()
    for index, image in enumerate(pixels):
        others = [peak_signal_noise_ratio(other, image, data_range=1) for other in np.delete(pixels, index, axis=0)]
        assert nearest[index] == pytest.approx(max(others))
    assert nearest[1] == nearest[3] == pytest.approx(10 * np.log10(4 * 3 * 16 * 16))


def test_a_repeated_image_is_its_own_neighbour_and_a_single_one_has_none():
    truth = photos(1)
    assert score(truth.repeat(2, 1, 1, 1), None).images["nearest"].tolist() == [100, 100]
    assert score(truth, None).images["nearest"].isna().tolist() == [True]


def test_recognisable_is_by_psnr_or_by_structure_and_nothing_is_no_image():
    truth = photos(60)[[24, 34, 44, 54]] / 2 + 0.25
    brighter = truth[1] + 0.12  # 18.4 dB, and every edge is there
    images = torch.stack([truth[0] + 0.05 * (noise(3, 16, 16) - 0.5), brighter, noise(3, 16, 16)])
    found = score(truth, Reconstruction(images))
    table = found.images
    assert table["reconstruction"][:2].tolist() == [0, 1]
    assert table["psnr"][0] > RECOGNISABLE_PSNR > table["psnr"][1]
    assert table["ssim"][1] > RECOGNISABLE_SSIM
    assert found.summary["recognisable_rate"] == 0.5
    flat = torch.full((2, 1, 8, 8), 0.45)
    assert score(flat, None).summary["recognisable_rate"] == 0  # though mid-grey is within 26 dB of it
    assert score(flat, Reconstruction(flat + 0.05)).summary["recognisable_rate"] == 1


def test_the_thresholds_are_those_that_the_page_states():
    page = Path(scoring.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert f"at least {RECOGNISABLE_PSNR:g} dB, or SSIM of at least {RECOGNISABLE_SSIM:g} " in page


def test_an_exact_image_finds_its_original_and_a_missing_one_does_not():
    pool = photos(40)
    truth = pool[[7, 3, 30]]
    found = score(truth, Reconstruction(truth[[2, 0]]), candidates=pool)
    assert found.images["reidentified"].tolist() == [True, False, True]
    assert found.summary["reidentified_rate"] == pytest.approx(2 / 3)
    pool[3] = 128 / 255  # nearer than all others to the mid-grey that a missing image is scored as
    nothing = score(pool[[3, 7]], None, candidates=pool)
    assert nothing.summary["reidentified_rate"] == 0
    unknown = score(truth, Reconstruction(truth))
    assert unknown.summary["reidentified_rate"] is None
    assert unknown.images["reidentified"].isna().all()


def test_a_copy_of_the_true_image_is_it_and_a_near_duplicate_is_not():
    pool = photos(6)
    pool[0] = pool[5]  # a copy that stands before it
    pool[1] = pool[5]
    pool[1, 0, 0, 0] += 1 / 255  # one grey level in one pixel
    assert reidentified(pool[[5, 5]], torch.stack([pool[5], pool[1]]), pool) == [True, False]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**16), st.integers(1, 64))
def test_the_nearest_of_all_is_that_of_plain_distances(n_images, n_candidates, seed, chunk):
    generator = np.random.default_rng(seed)
    pool = torch.tensor(generator.integers(0, 256, (n_candidates, 1, 2, 2)) / 255, dtype=torch.float32)
    images = torch.tensor(generator.random((n_images, 1, 2, 2), np.float32))
    places = generator.integers(n_candidates, size=n_images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identify, "_CHUNK", chunk)
        found = reidentified(pool[places], images, pool)
    distances = (images[:, None].double() - pool[None]).square().sum((2, 3, 4))
    assert found == [
        torch.equal(pool[place], pool[int(row.argmin())]) for place, row in zip(places, distances, strict=True)
    ]


def test_images_of_chance_find_their_original_once_in_n():
    pool, seeds = photos(40, 8), 20_000
    generator = torch.Generator().manual_seed(0)
    truth = pool[torch.randint(len(pool), (seeds,), generator=generator)]  # batches of one, all in one call
    rate = np.mean(reidentified(truth, torch.rand(truth.shape, generator=generator), pool))
    chance = 1 / len(pool)
    assert abs(rate - chance) < 5 * (chance * (1 - chance) / seeds) ** 0.5


def test_matching_a_batch_finds_no_more_than_its_size_in_n():
    pool, batch, seeds = photos(40, 8), 4, 300
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(seeds):
        truth = pool[torch.randperm(len(pool), generator=generator)[:batch]]
        images = torch.rand(truth.shape, generator=generator)
        hits += sum(reidentified(truth, images[match(truth.numpy(), images.numpy())], pool))
    expected = seeds * batch / len(pool)
    assert expected - 5 * expected**0.5 < hits < batch * expected


def test_labels_are_judged_with_the_image_they_belong_to():
    truth, labels = photos(3), torch.tensor([5, 6, 7])
    found = score(truth, Reconstruction(truth[[2, 0]], torch.tensor([7, 6])), labels)
    assert found.summary["label_accuracy"] == pytest.approx(1 / 3)  # one right, one wrong, one missing
    assert score(truth, Reconstruction(truth), labels).summary["label_accuracy"] is None


def test_labels_are_found_whichever_image_carries_them_each_as_often_as_it_occurs():
    truth, labels = photos(4), torch.tensor([5, 5, 6, 7])

    def found(*labels_found):
        images = truth[: len(labels_found)].flip(0)
        return score(truth, Reconstruction(images, torch.tensor(labels_found)), labels).summary["labels_found"]

    assert found(7, 5, 6, 5) == 1
    assert found(5, 5, 5, 6) == 0.75
    assert found(6, 7) == 0.5
    assert score(truth, Reconstruction(truth), labels).summary["labels_found"] is None


def test_the_same_input_gives_the_same_bits():
    truth, images = photos(6), noise(6, 3, 16, 16)
    first, second = (score(truth, Reconstruction(images)) for _ in range(2))
    assert first.images.equals(second.images)
    assert first.summary == second.summary


@pytest.mark.parametrize(
    ("shape", "columns", "size"),
    [
        ((20, 3, 32, 32), 10, (684, 284)),
        ((2, 1, 100, 100), 2, (212, 212)),
        ((70, 3, 32, 32), 24, (868, 236)),
        ((210, 1, 16, 16), 30, (1084, 556)),
    ],
)
def test_the_grid_shows_truth_over_reconstruction(shape, columns, size):
    truth = noise(*shape).mul(255).round().div(255)
    images = truth.flip(0)
    certified = torch.zeros(shape[0], dtype=torch.bool)
    certified[-1] = True  # belongs to the first true image
    found = score(truth, Reconstruction(images, certified=certified))
    grid = Image.open(io.BytesIO(grid_png(truth, found)))
    assert grid.size == size
    tile = (size[0] - 4) // columns - 4
    above, below = grid.crop((4, 4, 4 + tile, 4 + tile)), grid.crop((4, 8 + tile, 4 + tile, 8 + 2 * tile))
    assert above.tobytes() == below.tobytes()
    corner = truth[0].expand(3, -1, -1)[:, 0, 0].mul(255).round().int().tolist()
    assert list(above.getpixel((0, 0))) == corner
    assert grid.getpixel((3, 8 + tile)) == (0, 160, 60)
    assert grid.getpixel((3, 4)) == (255, 255, 255)


@pytest.mark.parametrize(("count", "side", "size"), [(2, 300, (524, 396)), (70, 90, (1636, 332))])
def test_the_grid_shows_large_images_reduced(count, side, size):
    truth = torch.full((count, 3, 3 * side // 4, side), 0.2)
    grid = Image.open(io.BytesIO(grid_png(truth, score(truth, Reconstruction(truth)))))
    assert grid.size == size
    assert grid.getpixel((4, 4)) == (51, 51, 51)
