"""Real distributions, installed by pip into temporary folders; a working folder with a tracking store; the program."""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

PLUGINS = Path(__file__).parents[1] / "plugin"


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


def laid_out(source, site):
    """Leave a project in a folder as an installer does, which spares starting one."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {point}" for name, point in points.items())]
    about.joinpath("entry_points.txt").write_text("\n".join(lines))
    for module in source.rglob("*.py"):
        copy = site / module.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(module, copy)
    return site


@pytest.fixture(scope="session")
def faulty_site(tmp_path_factory):
    """The folder that the faulty plugins are installed in."""
    return laid_out(PLUGINS / "faulty", tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory):
    """The folder that the misbehaving plugins are installed in."""
    return laid_out(PLUGINS / "misbehaving", tmp_path_factory.mktemp("misbehaving"))


@pytest.fixture
def plugins(plugin_site, monkeypatch):
    """The misbehaving plugins, importable in this process."""
    monkeypatch.syspath_prepend(str(plugin_site))


@pytest.fixture
def run_one(plugins):
    """A function that runs one small cell in this process, the misbehaving plugins among its choices."""
    from gibench.experiment import run_cell
    from gibench.sweep.suite import Suite

    def run(attack="mean-image", **options):
        suite = {"attack": attack, "model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu"} | options
        (cell,) = Suite.from_settings("suite", suite).cells()
        return run_cell(cell, lambda message, fraction=None: None)

    return run


@pytest.fixture(scope="session")
def broken_site(tmp_path_factory):
    """The folder that a distribution is installed in whose plugins cannot be used."""
    return laid_out(PLUGINS / "broken", tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def store_file(tmp_path_factory):
    """A tracking store without results, to be copied, since MLflow takes seconds to make one."""
    from gibench.mlflow_store import open_store

    file = tmp_path_factory.mktemp("store") / "gibench.db"
    open_store(f"sqlite:///{file}", "unused", create=True)
    return file


@pytest.fixture
def uri(tmp_path, store_file):
    """The address of a store of the test's own, which holds the experiment `unused`."""
    shutil.copy(store_file, tmp_path / "store.db")
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def record(tmp_path_factory):
    """A function that writes a result into an MLflow store, as somebody else's delivery does; gives its row."""
    from gibench.recording import Recorder
    from gibench.results import Results

    folder, recorders = tmp_path_factory.mktemp("elsewhere"), {}

    def write(uri, result, experiment=None, parent=None):
        results = Results(folder, experiment, create=True)
        if (uri, experiment) not in recorders:
            recorders[uri, experiment] = Recorder(uri, experiment, "elsewhere")
        row = results.save(result, force=True)
        run = recorders[uri, experiment].record(row, results.folder / row.key, parent)
        return replace(row, run_id=run)

    return write


@pytest.fixture
def workplace(tmp_path, store_file, monkeypatch):
    """A working folder of its own with the default tracking store."""
    shutil.copy(store_file, tmp_path / "gibench.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Outcome(NamedTuple):
    """How a call of the program ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys):
    """Call the program's `main` in this process, which spares its imports; jobs run here, too, unless it says where."""
    from gibench.cli import main

    def run(*arguments):
        capsys.readouterr()
        if arguments[:1] and arguments[0] in ("run", "sweep", "utility") and "--executor" not in arguments:
            arguments = (*arguments, "--executor", "local")
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        return Outcome(end.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def program(tmp_path):
    """Start the installed program as a process of its own, in `tmp_path`; it is ended with the test."""
    started = []

    def start(*arguments, site=None):
        environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
        command = [str(Path(sys.executable).with_name("gibench")), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
