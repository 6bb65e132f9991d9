"""What stands in two files of the repository is the same in both."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
import yaml

from lightning_tansens import __version__

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))


def lower_bounds():
    lines = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    return dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(lines), re.MULTILINE))


def test_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert f"\n## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["license"] == SETUP["metadata"]["license"]
    assert [author["name"] for author in citation["authors"]] == [SETUP["metadata"]["author"]]


def test_the_papers():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for address in re.findall(r"https://\S+", SETUP["metadata"]["project_urls"]):
        assert address.removeprefix("https://doi.org/") in citation


def test_the_oldest_versions_are_the_lower_bounds():
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(encoding="utf-8"), re.MULTILINE))
    bounds = lower_bounds()
    assert set(pins) <= set(bounds)
    required = set(re.findall(r"^([\w-]+)[<>=!]", SETUP["options"]["install_requires"], re.MULTILINE))
    assert required <= set(pins)
    for name, pin in pins.items():
        assert f"{pin}.".startswith(f"{bounds[name]}."), name


def test_the_workflow_runs_the_pythons_that_are_promised():
    promised = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert WORKFLOW["jobs"]["newest"]["strategy"]["matrix"]["python"] == promised
    assert SETUP["options"]["python_requires"] == f">={promised[0]}"


@pytest.mark.parametrize("job", WORKFLOW["jobs"])
def test_the_workflow_runs_scripts_that_there_are(job):
    scripts = [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]
    assert scripts
    for script in scripts:
        assert (ROOT / script).stat().st_mode & 0o111
