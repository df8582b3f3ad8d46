"""Real distributions, installed by pip into temporary folders."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1] / "plugin"


@pytest.fixture(scope="session")
def pip_install(tmp_path_factory):
    """Install project folders, copied first so that building leaves nothing behind, and give the folder they are in."""

    def install(*projects):
        copies = tmp_path_factory.mktemp("projects")
        sources = [shutil.copytree(project, copies / str(number)) for number, project in enumerate(projects)]
        target = tmp_path_factory.mktemp("site")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*pip, "--target", str(target), *map(str, sources)], check=True, capture_output=True, text=True)
        return target

    return install


@pytest.fixture(scope="session")
def plugin_site(pip_install):
    """The folder that the misbehaving plugins are installed in."""
    return pip_install(PLUGIN)


@pytest.fixture
def plugins(plugin_site, monkeypatch):
    """The misbehaving plugins, importable in this process."""
    monkeypatch.syspath_prepend(str(plugin_site))
