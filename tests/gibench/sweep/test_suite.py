"""A suite file is read, validated in full and expanded to cells before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibench.errors import UsageError
from gibench.sweep.suite import Suite


@pytest.fixture
def read(tmp_path):
    def write_and_read(text, **overrides):
        file = tmp_path / "mine.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Suite.read(file, overrides)

    return write_and_read


def test_a_key_with_a_list_is_an_axis_and_cells_are_their_product(read):
    suite = read("attack: [random, mean-image]\ndefense: [none, dp]\nbatch_size: [4, 8]\nseed: [0-1, 5]\ndevice: cpu")
    cells = suite.cells()
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 2 * 2 * 3
    assert [cell.seed for cell in cells[:: 2 * 2 * 2]] == [0, 1, 5]


def test_everything_else_has_the_defaults_of_run(read):
    (cell,) = read("attack: random").cells()
    assert (cell.defense, cell.dataset, cell.model) == ("none", "photos", "mlp:depth=5,width=200")
    assert (cell.train_steps, cell.batch_size, cell.labels, cell.seed) == (0, 20, "iid", 0)
    assert (cell.knows, cell.dtype, cell.timeout) == ("batch_size,local_hyperparameters,prior", "float32", None)


def test_what_the_server_knows_is_an_axis(read):
    cells = read('attack: random\nknows: ["batch_size,labels", "labels,batch_size", batch_size]').cells()
    assert [cell.knows for cell in cells] == ["batch_size,labels", "batch_size"]


def test_a_suite_is_called_as_its_file_unless_it_has_a_name(read):
    assert read("attack: random").name == "mine"
    assert read("attack: random\nname: smoke").name == "smoke"


def test_overrides_take_the_place_of_what_the_file_says(read):
    suite = read("attack: random\ntimeout: 5\ndevice: cuda\nexperiment: theirs", device=["cpu"], timeout=9.0)
    assert (suite.device, suite.timeout, suite.experiment) == (["cpu"], 9.0, "theirs")


GRIDS = """
attack: [random, mean-image]
device: cpu
timeout: 5
seed: 0-1
grids:
  - {batch_size: 4, model: "mlp:width=20"}
  - {batch_size: [6, 8], model: "mlp:width=30", attack: random, timeout: 7}
"""


def test_each_grid_has_its_own_keys_in_place_of_the_suites(read):
    cells = read(GRIDS).cells()
    pairs = [(cell.attack, cell.batch_size, cell.model, cell.seed, cell.timeout) for cell in cells]
    narrow, wide = "mlp:depth=5,width=20", "mlp:depth=5,width=30"
    first = [(attack, 4, narrow, seed, 5) for seed in (0, 1) for attack in ("random", "mean-image")]
    assert pairs == [*first, *(("random", size, wide, seed, 7) for seed in (0, 1) for size in (6, 8))]


def test_overrides_take_the_place_of_what_a_grid_says_too(read):
    assert {cell.timeout for cell in read(GRIDS, timeout=9.0).cells()} == {9.0}


def test_a_cell_of_two_grids_is_run_once(read):
    cells = read("device: cpu\ngrids: [{attack: random}, {attack: [random, mean-image], timeout: 3}]").cells()
    assert [(cell.attack, cell.timeout) for cell in cells] == [("random", 3), ("mean-image", 3)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("grids: []\nattack: random", r"grids=\[\] is refused: .*at least 1 item"),
        ("grids: random\nattack: random", "grids='random' is refused"),
        ("grids: [random]\nattack: random", "mine.yaml: grids=.* is refused"),
        ("grids: [{seed: 1}]", "grid 1 of the suite mine names no attack: add one"),
        ("attack: random\ngrids: [{seed: 1}, {seeds: 1}]", "grid 2 of the suite mine has no setting 'seeds': it has"),
        ("attack: random\ngrids: [{batch_size: 0}]", "grid 1 of the suite mine: batch_size=0 is refused"),
        (
            "attack: random\ngrids: [{experiment: theirs}]",
            "has its own 'experiment', which is the whole suite's: write it beside 'grids'",
        ),
        ("attack: random\ngrids: [{grids: [{seed: 1}]}]", "has its own 'grids'"),
        ("attack: random\ngrids: [{seed: 0-60000}, {seed: 0-60000}]", "120002 cells are more than the 100000"),
    ],
)
def test_a_mistake_in_a_grid_is_one_clear_line(read, text, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        read(text).cells()
    assert "\n" not in str(refusal.value)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=5))
def test_ranges_of_seeds_are_written_out(pairs):
    texts = [f"{first}-{first + length}" for first, length in pairs]
    written = [seed for first, length in pairs for seed in range(first, first + length + 1)]
    assert Suite.from_settings("suite", {"attack": "random", "seed": texts}).seed == written


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("attack: random\nattacks: [dp]", "has no setting 'attacks': it has attack, batch_size, dataset"),
        ("attack: [random", "is no YAML"),
        ("attack: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("attack: random\nseed: 0\nseed: 1", "the key 'seed' stands twice"),
        ("attack: [random]\ndefense: []", "defense=.. is refused: .*at least 1 item"),
        ("- random", "holds no keys: write them as in 'attack: "),
        ("", "holds no keys"),
        ("defense: dp", "names no attack: add one"),
        ("attack: random\nbatch_size: many", "batch_size='many' is refused"),
        ("attack: random\nbatch_size: 2.5", "batch_size=2.5 is refused"),
        ("attack: random\nbatch_size: 0", "batch_size=0 is refused"),
        ("attack: random\nseed: -1", "seed=-1 is refused"),
        ("attack: random\nseed: true", "seed=True is refused"),
        ("attack: random\nseed: 5-3", "a range goes from a seed up to another"),
        ("attack: random\nseed: some", "'some' is no seed: write a number such as 0, or a range such as 0-9"),
        ("attack: random\nlabels: mixed", "labels='mixed' is refused: .*'iid', 'unique' or 'same'"),
        ("attack: random\ndtype: float8", "dtype='float8' is refused"),
        ("attack: random\ntimeout: 0", "timeout=0 is refused"),
        ("attack: random\ntimeout: .nan", "timeout=nan is refused"),
        ("attack: random\ntimeout: 1e308", r"timeout=1e\+308 is refused"),
        ("attack: random\ntimeout: 1e-320", "timeout=1e-320 is refused"),
        ("attack: random\ntrain_steps: 99999999999999999999999", "train_steps=9{23} is refused"),
        ("attack: random\ntrain_steps: 9999999999999999", "train_steps=9{16} is refused"),
        ("attack: random\nexperiment: 010", "experiment=10 is refused: it is read as a number: put it in quotes"),
        ("attack: random\nseed: 12:30:45", "'12:30:45' is no seed"),
        ("attack: random\nlabels: no", "labels='no' is refused"),
        (
            "attack: random\nexperiment: [" + "x, " * 10_000 + "x]",
            r"experiment=.* \.\.\. \d+ characters \.\.\. .*is refused",
        ),
        ("attack: {random: 1}", "attack=.* is refused"),
        (b"attack: \xff", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_one_clear_line(read, text, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        read(text)
    assert "\n" not in str(refusal.value)
    assert "mine.yaml" in str(refusal.value)


def test_numbers_are_read_as_on_the_command_line(read):
    suite = read("attack: random\nseed: [010, 2-3]\nbatch_size: 08\ntimeout: 1e2\ntrain_steps: +5")
    assert (suite.seed, suite.batch_size, suite.timeout, suite.train_steps) == ([10, 2, 3], [8], 100.0, [5])


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path, name):
    with pytest.raises(UsageError, match=r"cannot be read: (No such file|Is a directory)"):
        Suite.read(tmp_path / name, {})


def test_too_many_cells_are_refused_before_they_are_made(read):
    with pytest.raises(UsageError, match="400000 cells are more than the 100000 of one grid"):
        read("attack: [random, mean-image]\nseed: 0-99999\nbatch_size: [1, 2]").cells()


def test_a_text_that_is_no_utf8_is_told_to_be_none():
    with pytest.raises(UsageError, match=r"the suite: experiment=.*udcff.* holds bytes that are no UTF-8: rename it"):
        Suite.from_settings("the suite", {"attack": "random", "experiment": "o\udcff"})
