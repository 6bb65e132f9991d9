"""How Sphinx builds this documentation: ``sphinx-build -W --keep-going docs docs/_build``."""

import sys
from pathlib import Path

from lightning_tansens import __version__

sys.path.append(str(Path(__file__).parent))

project = "lightning-tansens"
author = "the lightning-tansens contributors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"lightning-tansens {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
exclude_patterns = ["_build", "results/**"]

myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_heading_anchors = 3
# links into the repository (examples, CSV files) are files to download on the built pages
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and units
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_rtype = False
