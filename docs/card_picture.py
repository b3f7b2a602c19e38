"""The pictures of a model card in docs/publishing.md: the README.md of an export, as GitHub renders it.

atoll prepare demo name=reef 'stage=[{until=60, mixture={books=80, python=20}}]'
atoll host runs/reef --wait-for 2          # then two islands, each with its own --contributor and --place
atoll export runs/reef reef-model; python docs/card_picture.py reef-model     # writes docs/card-*.png

Needs a Chromium, playwright and markdown-it.
"""

import argparse
import io
import shutil
from pathlib import Path

DOCS_DIR = Path(__file__).resolve().parent
WIDTHS = {"desktop": 1012, "phone": 500}  # CSS pixels
SHOWN = 0.5  # of the size, in the documents
STYLE = """
body { font: 16px/1.5 sans-serif; margin: 32px; color: #1f2328; overflow-wrap: break-word }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3em; line-height: 1.25 }
img { max-width: 100% }
pre, code { background: #f6f8fa; font: 13.6px monospace }
pre { padding: 16px; overflow: auto; border-radius: 6px }
table { border-collapse: collapse; display: block; overflow: auto; width: max-content; max-width: 100% }
td, th { border: 1px solid #d1d9e0; padding: 6px 13px }
tr:nth-child(2n) { background: #f6f8fa }
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="a directory that `atoll export` made")
    export: Path = parser.parse_args().export
    from markdown_it import MarkdownIt
    from PIL import Image
    from playwright.sync_api import sync_playwright

    card = (export / "README.md").read_text().split("---\n", 2)[2]  # what follows the metadata
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(card)
    page = f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{rendered}"
    (path := export / ".card.html").write_text(page)
    try:
        with sync_playwright() as driver:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name, width in WIDTHS.items():
                tab = browser.new_page(viewport={"width": width, "height": 900})
                tab.goto(path.resolve().as_uri())
                taken = Image.open(io.BytesIO(tab.screenshot(full_page=True)))
                small = taken.resize(
                    (int(width * SHOWN), int(taken.height * SHOWN)), Image.Resampling.LANCZOS
                )
                small.quantize(64).save(DOCS_DIR / f"card-{name}.png", optimize=True)
            browser.close()
    finally:
        path.unlink()


if __name__ == "__main__":
    main()
