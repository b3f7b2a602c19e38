"""The site of these pages: `make docs` builds it with Sphinx, from the Markdown which repositories show."""

import re

from sphinx.application import Sphinx

project = "atoll"
author = "the atoll authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "atoll"
html_show_copyright = False
html_static_path: list[str] = []
html_extra_path = ["demo.svg"]
myst_heading_anchors = 4  # as repositories make them, for links into a page
myst_enable_extensions = ["attrs_inline"]
exclude_patterns = ["measured", "__pycache__"]
# Commands with placeholders and output between them are no language of its own.
highlight_language = "none"

# A link out of docs/ leads to a file of the repository: on the site its words stay, without the link.
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?:\.\./)?[^)]*\)")
# Within docs/ a directory is shown by repositories; the site has a page for it.
DIRECTORY = re.compile(r"\]\(decisions\)")


def as_site(app: Sphinx, name: str, source: list[str]) -> None:
    """Change what only a repository can follow. Links from a page below docs/ to one beside it stay."""
    if name.startswith("decisions/"):
        source[0] = re.sub(r"\[([^\]]+)\]\(\.\./\.\./[^)]*\)", r"\1", source[0])
        return
    source[0] = DIRECTORY.sub("](decisions/index.md)", OUTSIDE.sub(r"\1", source[0]))


def setup(app: Sphinx) -> None:
    app.connect("source-read", as_site)
