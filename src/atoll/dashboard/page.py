"""The page: what is fixed of it, put together for a server, or with a run's view into one file."""

import base64
import hashlib
from pathlib import Path

import msgspec

from atoll.dashboard import atlas

STATIC = Path(__file__).with_name("static")
STYLES = ("uplot.css", "style.css")
SCRIPTS = ("uplot.js", "format.js", "dom.js", "map.js", "charts.js", "panels.js", "islands.js", "main.js")
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
# Nothing from any other host, no script or style but our own files, no frame around the page, no forms.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def files() -> dict[str, tuple[bytes, str]]:
    """By name the files that the live page refers to: what is in each, and its kind."""
    found = {name: ((STATIC / name).read_bytes(), KINDS[Path(name).suffix]) for name in (*STYLES, *SCRIPTS)}
    world = {"width": atlas.WIDTH, "height": atlas.height(), "land": atlas.outline()}
    return {**found, "world.json": (msgspec.json.encode(world), "application/json")}


def live_page() -> bytes:
    """The page that asks its server for everything."""
    styles = "".join(f'<link rel="stylesheet" href="{name}">\n' for name in STYLES)
    scripts = "".join(f'<script defer src="{name}"></script>\n' for name in SCRIPTS)
    return _filled("", styles, scripts)


def kept_page(data: bytes) -> bytes:
    """One file with everything in it; `data` is the view as JSON, of strangers' words too."""
    style = "\n".join((STATIC / name).read_text("utf-8") for name in STYLES)
    script = "\n".join((STATIC / name).read_text("utf-8") for name in SCRIPTS)
    # Inside of a page's script only these letters could end it.
    safe = data.decode().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _filled(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        f"<style>{style}</style>\n",
        f'<script type="application/json" id="kept">{safe}</script>\n<script>{script}</script>\n',
    )


def _filled(policy: str, styles: str, scripts: str) -> bytes:
    page = (STATIC / "page.html").read_text("utf-8")
    for name, text in (("POLICY", policy), ("STYLES", styles), ("SCRIPTS", scripts)):
        head, mark, rest = page.partition(f"<!-- {name} -->\n")
        assert mark, name
        page = head + text + rest
    return page.encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
