"""The job array of leaderboard/README.md, run by a stand-in for Slurm's `sbatch`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gibench.result import Row
from gibench.results import Results

ROOT = Path(__file__).parents[2]
SBATCH = """#!/bin/bash
# Runs the jobs of an array one after the other, each with the variables that Slurm sets.
set -euo pipefail
asked=
if [[ $1 == --array=* ]]; then asked=${1#--array=}; shift; fi
array=${asked:-$(sed -n 's/^#SBATCH --array=//p' "$1")}
cores=$(sed -n 's/^#SBATCH --cpus-per-task=//p' "$1")
for task in $(seq "${array%-*}" "${array#*-}"); do
  SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=$cores bash "$@" || exit 1
done
"""
SUITE = """
attack: [random, mean-image]
model: mlp:width=20,depth=2
batch_size: 4
seed: 0-2
device: cpu
"""


@pytest.mark.slow
def test_the_array_runs_each_cell_once_and_its_shares_become_one(tmp_path):
    script, commands = re.findall(r"^```sh\n(#!/bin/bash\n.*?)^```\n\n```sh\n(.*?)^```$", *_readme(), re.M | re.S)[0]
    script = script.replace("--array=1-8", "--array=1-2").replace("/8", "/2").replace("per-task=4", "per-task=1")
    (tmp_path / "array.sh").write_text(script)
    (tmp_path / "headline").write_text(SUITE)
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    path = os.pathsep.join([str(sbatch.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    for command in (commands, "sbatch --array=2 array.sh headline"):
        bash = ["bash", "-ec", command]
        done = subprocess.run(bash, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("stored before") == len(Results(tmp_path / "results-2").rows(Row)) > 0
    shares = [{row.cell for row in Results(tmp_path / f"results-{share}").rows(Row)} for share in (1, 2)]
    assert not shares[0] & shares[1]
    assert {row.cell for row in Results(tmp_path / "gibench-results").rows(Row)} == shares[0] | shares[1]
    assert len(shares[0] | shares[1]) == 6


def _readme():
    return [(ROOT / "leaderboard" / "README.md").read_text()]
