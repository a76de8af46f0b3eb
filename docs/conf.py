"""Sphinx's configuration of the documentation; `make docs` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

import dense_imb

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "dense_imb"
author = copyright = "the dense_imb authors"
version = release = dense_imb.__version__

extensions = ["myst_nb", "sphinx_copybutton", "dense_imb_pages"]
exclude_patterns = ["_build", "_ext", "**.ipynb_checkpoints"]
nitpicky = True
smartquotes = False  # "--out" keeps its hyphens
highlight_language = "text"  # formulas are indented
python_maximum_signature_line_length = 80

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are stored with their outputs
suppress_warnings = ["mystnb.unknown_mime_type"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"dense_imb {version}"
html_static_path = ["_static"]
html_css_files = ["dense_imb.css"]
html_copy_source = False
html_show_sphinx = False
