"""`gibench audit`: options, exit codes, and what is printed where."""

import json
import re
from pathlib import Path

import pytest
import torch

from gibench.audit.attempts import Attempt
from gibench.audit.protocol import Protocol
from gibench.audit.report import SCHEMA, AuditReport

README = Path(__file__).parents[3] / "gibench" / "audit" / "README.md"
CODE = """
import torch
from torch import nn

print("a model that prints")

def make(width=100, seed=0):
    torch.manual_seed(seed)
    print("made")
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )

def fails():
    raise RuntimeError("no data\\nhere")

def text():
    return "no network"

def needs(width):
    return make(width)

def leaves():
    raise SystemExit(3)

def bare():
    return nn.Flatten()

def frozen():
    return make().requires_grad_(False)

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(144, 10)

    def forward(self, images):
        return {"logits": self.last(images.flatten(1))}

def pairs():
    return Pairs()
"""
SCRIPT = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", required=True)
parser.parse_args()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The gradient of three pictures, in a folder with the code of its model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(CODE, encoding="utf-8")
    scope = {"__name__": "net"}
    exec(CODE, scope)
    model = scope["make"]()
    images = torch.randint(0, 256, (3, 1, 12, 12), generator=torch.Generator().manual_seed(0)) / 255
    loss = torch.nn.functional.cross_entropy(model(images), torch.arange(3))
    gradient = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)
    )
    torch.save(gradient, tmp_path / "update.pt")
    torch.save([images], tmp_path / "truth.pt")
    torch.save(model.state_dict(), tmp_path / "received.pt")
    return tmp_path


GIVEN = ("audit", "update.pt", "--model", "net.py:make(width=100)", "--image-shape", "1,12,12", "--device", "cpu")


def test_json_alone_is_on_standard_output_and_holds_no_image(call, folder):
    code, out, err = call(*GIVEN, "--json", "--truth", "truth.pt")
    report = json.loads(out)
    assert code == 3
    assert (report["schema"], report["verdict"], report["certified_pixels"]) == (SCHEMA, "LEAKS", 3)
    assert report["score"]["exact_rate"] == 1
    assert "pixels" not in report["images"][0]
    unknown = {
        "optimizer",
        "batch_size",
        "lr",
        "weight_decay",
        "local_steps",
        "clients",
        "loss",
        "reduction",
        "defense",
    }
    assert set(report["unknown"]) == unknown
    assert "made" in err
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "net.py",
        "received.pt",
        "truth.pt",
        "update.pt",
    ]


LOUD = """
import atexit
import ctypes
import os
import subprocess
import sys

def everywhere():
    print("by Python")
    os.write(1, b"by a descriptor")
    ctypes.CDLL(None).printf(b"by C code, which holds it back")
    subprocess.run([sys.executable, "-c", "print('by another process')"], check=True)
    sys.__stdout__.write("by the stream itself")

everywhere()
atexit.register(everywhere)
"""


def test_nothing_else_is_on_standard_output_however_a_model_prints(folder, program):
    (folder / "net.py").write_text(LOUD + CODE, encoding="utf-8")
    process = program(*GIVEN, "--json")
    out, err = process.communicate()
    assert process.returncode == 3
    assert json.loads(out)["verdict"] == "LEAKS"
    for said in ("by Python", "by a descriptor", "by C code", "by another process", "by the stream itself"):
        assert err.count(said) == 2  # when it is imported, and at the end


def test_the_documented_keys_are_those_of_the_report():
    table = README.read_text(encoding="utf-8").partition("## The report as JSON")[2]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = [name for cell in first for name in cell.replace("`", "").replace(" ", "").split(",")]
    told, none = Protocol(image_shape=(1, 2, 2)), torch.zeros(0).bool()
    report = AuditReport("NOT SHOWN", "", "auto", told, (), torch.zeros(0, 1, 2, 2), none, none)
    assert sorted(documented) == sorted(report.as_dict())
    attempt = next(line for line in table.splitlines() if line.startswith("| `attempts`"))
    assert set(re.findall(r"`(\w+)`", attempt)) - {"attempts"} == set(Attempt("random", "ok", "").as_dict())


def test_what_is_documented_is_what_an_audit_of_any_outcome_has(call, folder):
    keys = [sorted(json.loads(call(*GIVEN, *more, "--json").out)) for more in ((), ("--optimizer", "adam"))]
    assert keys[0] == keys[1]


def test_a_protocol_file_is_read_and_options_go_first(call, folder):
    (folder / "audit.yaml").write_text("image_shape: [1, 12, 12]\nbatch_size: 3\nstd: 0.5\nkind: gradient\n")
    made = ("audit", "update.pt", "--model", "net:make", "--device", "cpu", "--protocol", "audit.yaml", "--json")
    report = json.loads(call(*made, "--std", "1").out)
    assert report["told"] | {"batch_size": 3, "std": [1.0], "kind": "gradient"} == report["told"]
    assert (report["kind"], report["certified_pixels"]) == ("gradient", 3)
    wrong = call(*made)
    assert wrong.code == 3
    assert json.loads(wrong.out)["certified_pixels"] == 0


@pytest.mark.parametrize(("fail_on", "expected"), [("suspect", 4), ("certified", 0)])
def test_what_is_suspect_fails_if_asked(call, folder, fail_on, expected):
    code, out, _ = call(*GIVEN, "--attack", "spearpp:without=certificates/next-layer", "--fail-on", fail_on)
    assert (code, out.partition(":")[0]) == (expected, "SUSPECT")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("audit", "none.pt", *GIVEN[2:]), "there is no file 'none.pt'"),
        ((*GIVEN, "--model", "net.py:fails"), "fails (RuntimeError: no data here)"),
        ((*GIVEN, "--model", "net.py:make(widht=2)"), "unexpected keyword argument 'widht'"),
        ((*GIVEN, "--model", "net.py:text"), "makes a str: it must make a torch.nn.Module"),
        ((*GIVEN, "--model", "net.py:other"), "has no 'other'"),
        ((*GIVEN, "--model", "nowhere.py:make"), "there is no file 'nowhere.py'"),
        ((*GIVEN, "--model", "no_such_module:make"), "cannot be imported (ModuleNotFoundError"),
        ((*GIVEN, "--model", "net.py"), "names no model"),
        ((*GIVEN, "--image-shape", "12,12,1"), "did you mean 1,12,12"),
        ((*GIVEN, "--image-shape", "144"), "image_shape"),
        ((*GIVEN, "--kind", "weights"), "give weights"),
        ((*GIVEN, "--kind", "sum"), "kind='sum' is refused"),
        ((*GIVEN, "--fail-on", "anything"), "use certified or suspect"),
        ((*GIVEN, "--budget", "0"), "give minutes above 0"),
        ((*GIVEN, "--protocol", "update.pt"), "cannot be read"),
        ((*GIVEN, "--truth", "received.pt"), "the truth must be one array of images [N, 1, 12, 12]"),
        ((*GIVEN, "--output", "net.py"), "--output net.py cannot be made (File exists)"),
        ((*GIVEN, "--output", "net.py/report"), "cannot be made (Not a directory)"),
        ((*GIVEN, "--model", "net.py:needs"), "missing 1 required positional argument: 'width'): mend it, or give its"),
        ((*GIVEN, "--model", "net.py:leaves"), "fails (SystemExit: 3)"),
        ((*GIVEN, "--model", "script.py:make"), "'script.py' cannot be imported (SystemExit: 2)"),
        ((*GIVEN, "--model", "broken.py:make"), "'broken.py' cannot be imported (SyntaxError"),
        ((*GIVEN, "--model", "net.py:bare"), "the model has no parameters that a client trains"),
        ((*GIVEN, "--model", "net.py:frozen"), "the model has no parameters that a client trains"),
        ((*GIVEN, "--model", "net.py:lazy"), "lazy layers"),
        ((*GIVEN, "--model", "net.py:pairs"), "must give logits of shape [N, classes]"),
        (("audit", ".", *GIVEN[2:]), "there is no file '.'"),
        ((*GIVEN, "--weights", "net.py"), "the weights 'net.py' has no format that is read here"),
        ((*GIVEN, "--mean", "grey"), "mean"),
        ((*GIVEN, "--lr", "nan"), "lr"),
        ((*GIVEN, "--defense", "dp+nope"), "nope"),
        ((*GIVEN, "--device", "abacus"), "abacus"),
    ],
)
def test_a_mistake_is_one_clear_line_and_no_report(call, folder, change, complaint):
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "broken.py").write_text("def make(:", encoding="utf-8")
    code, out, err = call(*change)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(errors)) == (2, "", 1)
    assert complaint in errors[0]
    assert "Traceback" not in err


def test_a_refusal_is_a_report_of_its_own_exit_code(call, folder):
    code, out, _ = call(*GIVEN, "--optimizer", "adam")
    assert code == 2
    assert out.startswith("REFUSED: ")
