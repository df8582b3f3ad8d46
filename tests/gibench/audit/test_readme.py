"""The worked example of the audit's README, run as it is written there."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "gibench" / "audit" / "README.md"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Write the client, and give a function that runs it and the command that audits it."""
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"^`client\.py`\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^gibench (audit .*)$", text, re.MULTILINE)
    (tmp_path / "client.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def train(*arguments):
        run = [sys.executable, "client.py", *arguments]
        subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True)
        return shlex.split(command)

    return train


def test_the_audit_finds_every_image(call, example, tmp_path):
    code, out, err = call(*example(), "--output", "report", "--images", "--device", "cpu")
    assert code == 3
    assert out.startswith("LEAKS: 8 images are recovered from the update and certified exact\n")
    assert "client.py:network, which must be your own or trusted" in err
    assert json.loads((tmp_path / "report" / "audit.json").read_text())["certified_pixels"] == 8
    page = (tmp_path / "report" / "audit.html").read_text()
    assert page.count('class="certified"') == 8
    assert page.count("data:image/png;base64,") == 9  # the singular values, too
    assert "http" not in page
    assert (tmp_path / "report" / "audit.md").read_text().startswith("# LEAKS: 8 images")


@pytest.mark.slow
def test_the_audit_of_the_same_client_with_dp_sgd_finds_none(call, example):
    code, out, _ = call(*example("--private"), "--device", "cpu")
    assert code == 0
    assert out.startswith("NOT SHOWN: ")
