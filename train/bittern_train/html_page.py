"""What pages of HTML share that are one file, with the pictures in it, and ask nobody for anything."""

from __future__ import annotations

import base64
from html import escape

import cv2

from bittern.errors import printable
from bittern.frames import Pixels

_QUALITY = 80


def document(title: str, style: str, body: str) -> str:
    """A whole page.

    Args:
        title: as text.
        style: CSS.
        body: HTML, of the main part.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """A value as text for HTML, also between quotes; what cannot be printed is shown as an escape."""
    return escape(printable(str(value)))


def image(picture: Pixels, alt: str = "") -> str:
    """A picture, (H, W, 3) uint8 BGR, as an `<img>` that holds its JPEG file; `alt` is text."""
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    size = f'width="{picture.shape[1]}" height="{picture.shape[0]}"'
    return f'<img alt="{text(alt)}" {size} src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
