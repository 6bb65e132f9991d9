"""What the documentation shows runs, what it links to is there, and no public name is left out of it."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
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


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = {"__name__": "__main__"}
    for needed, block in blocks(page, "python"):
        if not needed or find_spec(needed):
            exec(compile(block, page, "exec"), names)


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
    assert "autoclass:: lightning_tansens.monitor.Options" in callbacks
    for name, module in {**modules, "estimators": "estimators"}.items():
        page = (ROOT / f"docs/api/{name}.md").read_text(encoding="utf-8")
        assert f"automodule:: lightning_tansens.{module}\n   :members:\n   :imported-members:" in page
    assert "automodule:: lightning_tansens.record\n   :members:" in (ROOT / "docs/api/records.md").read_text(
        encoding="utf-8"
    )
