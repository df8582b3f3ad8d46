"""Cells as tasks of a Ray cluster of two nodes, one of which is lost."""

import random
import time
from dataclasses import replace

import pytest

from gibench.errors import UsageError
from gibench.result import Row
from gibench.sweep.cluster import Cluster
from gibench.sweep.executors import Local
from gibench.sweep.suite import Suite

SMALL = {"model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu", "threads": 1}


def cells(**options):
    return Suite.from_settings("suite", {"attack": ["random", "mean-image"], "seed": "0-3"} | SMALL | options).cells()


def silent(message, fraction=None):
    pass


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of a head without processors and two nodes of one each."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers wait for whatever else a machine does
    from ray.cluster_utils import Cluster as Nodes

    found = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [found.add_node(num_cpus=1) for _ in range(2)]
        found.wait_for_nodes()
        yield found, workers
    finally:
        found.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_every_cell_is_run_once_though_a_node_is_lost(nodes, seed):
    """One of the two, when a number of cells drawn at random is done, and a moment later."""
    cluster, workers = nodes
    draw = random.Random(seed)
    wanted, victim = draw.randrange(1, 6), draw.choice(workers)
    jobs = cells()
    found = []
    for number, result in Cluster(cluster.address).results(iter(list(enumerate(jobs))), Row, silent):
        found.append((number, result))
        if len(found) == wanted:
            time.sleep(draw.random() * 0.2)
            cluster.remove_node(victim, allow_graceful=False)
    assert sorted(number for number, _ in found) == list(range(len(jobs)))
    expected = dict(Local().results(iter(list(enumerate(jobs))), Row, silent))
    for number, result in found:
        assert lasting(result.row) == lasting(expected[number].row)
        assert result.grid_png == expected[number].grid_png
        assert result.row.workers == 1


def lasting(row):
    return replace(row, runtime_s=None, peak_memory_mb=None, workers=None)


def test_a_cluster_that_is_not_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed: pip install 'gibench\[ray\]'"):
        list(Cluster().results(iter([]), Row, silent))
