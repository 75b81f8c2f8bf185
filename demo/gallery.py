"""The gallery: one HTML file that shows every image beside its description."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from markdown_html import escape, to_html, to_plain

Row = Mapping[str, Any]
Thumbnail = Callable[[str], bytes | None]

WITH_TEXT = ("described", "reused")
STATUSES = (*WITH_TEXT, "rejected", "unknown", "pending")
ALT_LENGTH = 140
DESCRIBED, NOT_DESCRIBED = "Descriptions", "Not described"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_IMAGE_TYPES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


def write_gallery(rows: Iterable[Row], path: str | os.PathLike[str], *, title: str, thumbnail: Thumbnail) -> None:
    """Write one self-contained HTML file with a card for every row. The file appears whole or not at all.

    ``thumbnail`` returns a small picture of an image as JPEG, PNG, GIF or WebP, or None; it is called once for each
    card. No value in the rows is trusted: all are escaped, and the page's policy forbids scripts and requests.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # JSON can hold lone surrogates, UTF-8 cannot.
        with temporary.open("w", encoding="utf-8", errors="replace") as page:
            page.writelines(_page(list(rows), title, thumbnail))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def local_thumbnail(uri: str, *, edge: int = 560) -> bytes | None:
    """Return a small JPEG of a local image, or None: not local, not an image, or Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return None
    path = local_path(uri)
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            image.draft("RGB", (edge, edge))
            small = image.convert("RGB")
            small.thumbnail((edge, edge))
    # Decoders raise OSError, ValueError, SyntaxError, Pillow's own bomb error…, and one bad image must not cost the
    # page.
    except Exception:  # noqa: BLE001
        return None
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()


def local_path(uri: str) -> Path | None:
    """Return the path in a plain path or a ``file://`` address, or None for any other address."""
    if "://" not in uri:
        return Path(uri)
    address = urlsplit(uri)
    return Path(unquote(address.path)) if address.scheme == "file" else None


def image_name(uri: str) -> str:
    """Return an image's last path component, without the query of a web address."""
    path = unquote(urlsplit(uri).path) if "://" in uri else uri
    return path.rstrip("/").rpartition("/")[2] or uri


def total_cost(rows: Iterable[Row]) -> tuple[float, int]:
    """Return the cost of the rows' own calls in USD, and the number of billed calls without a known price."""
    # A reused description was paid for by an earlier run.
    calls = [row for row in rows if row.get("status") != "reused" and row.get("billed") != "no"]
    unpriced = [row for row in calls if row.get("cost_usd") is None and row.get("status") != "pending"]
    return sum(row["cost_usd"] for row in calls if row.get("cost_usd") is not None), len(unpriced)


def _page(rows: list[Row], title: str, thumbnail: Thumbnail) -> Iterator[str]:
    yield _head(title)
    yield f'<header>\n<h1>{escape(title)}</h1>\n<dl class="totals">{"".join(_totals(rows))}</dl>\n</header>\n'
    yield "<main>\n"
    yield from _section(DESCRIBED, [row for row in rows if _status(row) in WITH_TEXT], thumbnail)
    yield from _section(NOT_DESCRIBED, [row for row in rows if _status(row) not in WITH_TEXT], thumbnail)
    if not rows:
        yield "<p>No image was asked for.</p>\n"
    yield f"</main>\n<footer>{escape(_origin(rows))}</footer>\n</body>\n</html>\n"


def _head(title: str) -> str:
    style = Path(__file__).with_name("gallery.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
    )


def _totals(rows: list[Row]) -> Iterator[str]:
    counts = Counter(_status(row) for row in rows)
    for status in STATUSES:
        if counts[status] or status in ("described", "rejected"):
            count = f"{counts[status]:,}"
            if counts[status] and status not in WITH_TEXT:
                count = f'<a href="#{_anchor(NOT_DESCRIBED)}">{count}</a>'
            kind = status if counts[status] else "none"
            yield f'<div class="{kind}"><dt>{status}</dt><dd>{count}</dd></div>'
    cost, unpriced = total_cost(rows)
    label = f"cost, and {unpriced:,} of unknown price" if unpriced else "cost"
    yield f"<div><dt>{label}</dt><dd>{_usd(cost)}</dd></div>"
    waited = sum(row.get("elapsed_s") or 0 for row in rows)
    yield f"<div><dt>waited for answers</dt><dd>{_seconds(waited)}</dd></div>"


def _section(heading: str, rows: list[Row], thumbnail: Thumbnail) -> Iterator[str]:
    if rows:
        yield f'<section id="{_anchor(heading)}">\n<h2>{heading} <span>{len(rows):,}</span></h2>\n'
        yield '<div class="grid">\n'
        yield from (_card(row, thumbnail) for row in rows)
        yield "</div>\n</section>\n"


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _card(row: Row, thumbnail: Thumbnail) -> str:
    uri, status = str(row.get("uri") or ""), _status(row)
    content = _text(row) if status in WITH_TEXT else _error(row)
    return (
        f'<article class="card {status}">\n<div class="plate">{_picture(row, thumbnail)}</div>\n'
        f'<div class="body">\n<div class="name"><h3 title="{escape(uri)}">{_breakable(image_name(uri))}</h3>'
        f'<span class="badge">{status}</span></div>\n'
        f'{content}\n<dl class="facts">{"".join(_facts(row))}</dl>\n</div>\n</article>\n'
    )


def _breakable(name: str) -> str:
    return escape(name).replace("_", "_<wbr>")


def _picture(row: Row, thumbnail: Thumbnail) -> str:
    uri = str(row.get("uri") or "")
    data = thumbnail(uri)
    kind = next((kind for magic, kind in _IMAGE_TYPES.items() if data and data.startswith(magic)), None)
    if data is None or kind is None:
        return "<span>no picture to show</span>"
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'<img src="{source}" alt="{escape(_alternative(row))}">'


def _alternative(row: Row) -> str:
    """Return the picture's alternative text: the start of its description."""
    text = to_plain(str(row.get("text") or "")) or image_name(str(row.get("uri") or ""))
    if len(text) <= ALT_LENGTH:
        return text
    return text[: ALT_LENGTH - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


def _text(row: Row) -> str:
    language = escape(row["lang"]) if row.get("lang") else ""
    return f'<div class="text" lang="{language}" dir="auto">{to_html(str(row.get("text") or ""))}</div>'


def _error(row: Row) -> str:
    error = row.get("error")
    if not isinstance(error, Mapping):
        error = {"kind": _status(row), "message": "" if error is None else error}
    return f'<div class="error"><b>{escape(error.get("kind"))}</b> {escape(error.get("message") or "")}</div>'


def _facts(row: Row) -> Iterator[str]:
    if row.get("cost_usd") is not None:
        yield _fact("cost", _usd(row["cost_usd"]))
    elif row.get("billed") == "no":
        yield _fact("cost", "not billed")
    elif row.get("billed") == "unknown":
        yield _fact("cost", "perhaps billed")
    if row.get("elapsed_s") is not None:
        yield _fact("time", _seconds(row["elapsed_s"]))
    if row.get("lang"):
        yield _fact("language", escape(row["lang"]))
    if row.get("request_id"):
        yield _fact("request", f"<code>{escape(row['request_id'])}</code>")


def _fact(name: str, value: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _origin(rows: list[Row]) -> str:
    """Return which models described the images, in which runs."""
    models = {" ".join(str(row[key]) for key in ("vendor", "model") if row.get(key)) for row in rows}
    runs = {" / ".join(str(row[key]) for key in ("dag_id", "run_id") if row.get(key)) for row in rows}
    return " · ".join(", ".join(sorted(names - {""})) for names in (models, runs) if names - {""})


def _status(row: Row) -> str:
    # The status becomes a class name in the page, so only known ones may pass.
    status = row.get("status")
    return status if isinstance(status, str) and status in STATUSES else "unknown"


def _usd(value: float) -> str:
    text = f"{value:,.4f}"
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents[:2]}{cents[2:].rstrip('0')}"


def _seconds(value: float) -> str:
    return f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"
