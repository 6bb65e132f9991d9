"""What the documentation shows runs, what it links to is there, and no public name is left out of it."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI

import lightning_tansens
from tests.boring import BoringData, BoringModule

ROOT = Path(__file__).parents[1]
PAGES = [
    *(f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/*.md"))),
]


def blocks(page, language):
    """The code blocks of a page in a language, with what is written above them in a comment."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^(?:<!-- needs: (\w+) -->\n)?```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def pages_with(language):
    return [page for page in PAGES if blocks(page, language)]


def run(page, chosen):
    """Runs code blocks of a page one after another; returns the names that they leave behind."""
    names = {"__name__": "__main__"}
    for block in chosen:
        exec(compile(block, page, "exec"), names)
    return names


def packages_needed():
    """Each page that has code for which this package does not suffice, with the package that the code needs."""
    found = [(page, needed) for page in pages_with("python") for needed, _ in blocks(page, "python") if needed]
    return [pytest.param(*case, id=case[1]) for case in dict.fromkeys(found)]


@pytest.fixture
def no_network(monkeypatch):
    """Fails a test that asks for anything from another machine."""

    def refuse(host, *_, **__):
        raise AssertionError(f"the code of the page asks for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page, [block for needed, block in blocks(page, "python") if not needed])


@pytest.mark.thorough
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("page", "needed"), packages_needed())
def test_python_that_needs_a_package_runs(page, needed, tmp_path, monkeypatch):
    pytest.importorskip(needed, reason=f"{page} shows how to use {needed}; install the extras recipes and loggers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (_, first), *others = blocks(page, "python")  # all the others share the first one
    monitor = run(page, [first, *(block for package, block in others if package == needed)])["monitor"]
    assert monitor.records[-1].targets
    assert all(found.accuracy and found.loss for found in monitor.estimates.values())


@pytest.mark.thorough
def test_hydra_reads_the_file_of_the_recipe(tmp_path, monkeypatch):
    hydra = pytest.importorskip("hydra", reason="install the extra recipes")
    monkeypatch.chdir(tmp_path)
    page = "docs/recipes.md"
    place = re.search(r"for example `configs/(callbacks)/(\w+)\.yaml`", (ROOT / page).read_text(encoding="utf-8"))
    (block,) = [block for needed, block in blocks(page, "yaml") if needed == "hydra"]
    (tmp_path / place[1]).mkdir()
    (tmp_path / place[1] / f"{place[2]}.yaml").write_text(block, encoding="utf-8")
    (tmp_path / "train.yaml").write_text(f"defaults: [{place[1]}: {place[2]}]\n", encoding="utf-8")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = hydra.compose("train")
    (callback,) = [hydra.utils.instantiate(one) for one in config.callbacks.values()]
    assert isinstance(callback, lightning_tansens.TangentSensitivityMonitor)
    names = run(page, [blocks(page, "python")[0][1]])
    train, val, test = (names["loader"](samples).dataset for samples in (200, 100, 100))
    data = LightningDataModule.from_datasets(train, val, test, batch_size=32)
    names["trainer"](callback).fit(names["Classifier"](), data)
    assert callback.estimates["test"].accuracy
    assert "atc_confidence" in callback.records[-1].targets["test"].estimates["accuracy"]


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_yaml_is_understood(page, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for _, block in blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", block):  # a file that the YAML imports from
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
    for number, (_, block) in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        if "trainer" not in yaml.safe_load(block):
            continue  # the part of a user's own model
        options = ["--config", str(path), "--trainer.logger=false", "--trainer.accelerator=cpu"]
        callbacks = yaml.safe_load(block)["trainer"]["callbacks"]
        cli = LightningCLI(BoringModule, BoringData, args=options, run=False, save_config_callback=None)
        made = {type(callback).__name__ for callback in cli.trainer.callbacks}
        assert {callback["class_path"].rpartition(".")[2] for callback in callbacks} <= made


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_files_that_there_are(page):
    for language in ("sh", "shell"):
        for _, block in blocks(page, language):
            words = shlex.split(block.replace("\\\n", " "), comments=True)
            for script in [word for word in words if word.endswith((".py", ".yaml"))]:
                if re.search(r"lightning_logs|\$", script):
                    continue
                places = [ROOT / script, *(ROOT / "example_projects").glob(f"*/{script}")]
                assert any(place.exists() for place in places) or script == "plain.yaml", f"{page}: {script}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if "://" not in target:
            path = (ROOT / page).parent / target if target else ROOT / page
            assert path.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(path), f"{page}: {target}#{anchor}"


def anchors(page):
    """The anchors of a page's headings, as GitHub and Sphinx name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", one)).strip().lower().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_code_is_not_cut(page):
    """A box of the built pages holds 110 characters; a longer line would go on below."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        long = [line for line in block.splitlines() if len(line) > 110]
        assert not long, f"{page}, {language}: {long}"


def test_the_index_lists_each_page_once():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = sorted({Path(page).stem for page in PAGES if page.startswith("docs/")} - {"index"})
    linked = re.findall(r"^- \[[^]]*\]\(([\w/]+)\.md\)", index, re.MULTILINE)
    in_sidebar = re.findall(r"^([\w/]+)$", index, re.MULTILINE)
    assert sorted(linked) == sorted(in_sidebar) == sorted([*pages, "api/index"])
    assert re.search(r"!\[[^]]+\]\(images/\w+\.png\)", index)


def test_formulas_need_no_network():
    pytest.importorskip("sphinx")
    convert = pytest.importorskip("latex2mathml.converter").convert
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "lightning_tansens").rglob("*.py"))]
    formulas = [formula for source in sources for formula in re.findall(r"\.\. math:: (.*?)\n\n", source, re.DOTALL)]
    assert len(formulas) > 5
    assert all(convert(formula).startswith("<math") for formula in formulas)
    assert "mathjax" not in (ROOT / "docs/conf.py").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference():
    callbacks = (ROOT / "docs/api/callbacks.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"autoclass:: (\w+)$", callbacks, re.MULTILINE))
    modules = {"figures": "show.figures", "functional": "functional", "metrics": "metrics"}
    assert shown == set(lightning_tansens.__all__) - set(modules) - {"__version__"}
    for name, module in {**modules, "estimators": "estimators"}.items():
        page = (ROOT / f"docs/api/{name}.md").read_text(encoding="utf-8")
        assert f"automodule:: lightning_tansens.{module}\n   :members:\n   :imported-members:" in page
    assert "automodule:: lightning_tansens.record\n   :members:" in (ROOT / "docs/api/records.md").read_text(
        encoding="utf-8"
    )
