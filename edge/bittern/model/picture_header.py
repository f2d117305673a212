"""What the header of a picture file says: kind, size, orientation, and whether these bound the cost of decoding."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bittern.errors import PictureError

# A baseline picture has one scan. Each further one passes over the whole picture: about 1 ns a pixel if it is empty.
_MAX_SCANNED_PIXELS = 1_500_000_000
# Programs write a dozen at most. A large picture with more than this is not even tried.
_MAX_SCANS = 200
# Below so many pixels the tables of a lossless WebP, at most 12 kB for each block of 4 x 4 pixels, stay below 400 MB.
_MAX_LOSSLESS_WEBP = 500_000
# Far more than programs write; a reader in Python must come to an end.
_MAX_JPEG_SEGMENTS = 4096
_FILL = re.compile(rb"\xff+")
_MAX_PNG_CHUNKS = 100_000
_MAX_TIFF_TAGS = 64

TRUNCATED = "the file is truncated"


class Header(NamedTuple):
    """The header of a picture.

    Attributes:
        kind: name of the format.
        width: in pixels, as stored.
        height: the same.
        orientation: in which the decoder leaves the picture (EXIF, 1 to 8); 1 is upright.
        fault: why it must not be decoded, such as a missing end of the file; empty if nothing shows.
        bounded: whether time and memory of decoding follow from the size, whatever else is in the file.
        sized: whether the size is known; else only the decoder can tell.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    fault: str = ""
    bounded: bool = True
    sized: bool = True


class TooManyPixels(PictureError):
    """A picture has more pixels than are allowed."""


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Check the size of a picture, in pixels.

    Raises:
        TooManyPixels: it has more than `max_pixels`; the message is without the picture's name.
    """
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{width} x {height} is more than the limit of {max_pixels / 1e6:g} megapixels: make it smaller"
        )


# Formats by their first bytes.
_MAGIC = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "GIF": (b"GIF87a", b"GIF89a"),
    "PNM": tuple(b"P%d%c" % (number, blank) for number in range(1, 7) for blank in b" \t\r\n#"),
    "PAM": (b"P7\n",),
    "PFM": (b"PF\n", b"Pf\n"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "Sun raster": (b"\x59\xa6\x6a\x95",),
    "Radiance HDR": (b"#?RGBE", b"#?RADIANCE"),
    "OpenEXR": (b"\x76\x2f\x31\x01",),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "Photoshop": (b"8BPS",),
    "PDF": (b"%PDF-",),
    "video": (b"\x1a\x45\xdf\xa3",),
}
# How many bytes `kind_of` needs.
HEAD_BYTES = 256


def kind_of(head: bytes) -> str | None:
    """The format of a file by its first bytes; None for one that is no picture, or of an unknown format."""
    for kind, magic in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith(b"RIFF"):
        return {b"WEBP": "WebP", b"AVI ": "video"}.get(head[8:12])
    if head.startswith(b"BM"):
        # With the length of the next header, so that no text is taken for one.
        return "BMP" if int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124) else None
    if head[4:8] == b"ftyp":
        # The ISO base media file format: told apart by the brands.
        end = min(max(int.from_bytes(head[:4], "big"), 16), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        still = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
        return "HEIC" if brands & still else "video"
    if re.match(rb"\s*(?:<\?xml[^>]*>\s*)?<svg[\s>]", head):
        return "SVG"
    return None


def read(data: bytes) -> Header | None:
    """The header of a picture file, without decoding; None if there is none, or it is cut off.

    Formats: JPEG (ITU T.81), PNG (with eXIf), WebP (RFC 9649), BMP, GIF89a, TIFF 6.0 and BigTIFF (first directory),
    PNM, AVIF and HEIC (ISO 23008-12), JPEG 2000 (ITU T.800).
    """
    kind = kind_of(data[:HEAD_BYTES])
    if kind is None:
        return None
    reader = _READERS.get(kind)
    if reader is None:
        return Header(kind, 0, 0, bounded=False, sized=False)
    try:
        return reader(data)
    except (struct.error, IndexError, ValueError, OverflowError):
        return None


def _jpeg(data: bytes) -> Header | None:
    coding = precision = height = width = components = 0
    orientation = 0  # no EXIF block yet: only the first one counts
    complete = False
    offset = 2
    try:
        for marker, offset in _jpeg_segments(data):
            # SOF0..SOF15, without DHT (C4), JPG (C8) and DAC (CC)
            if coding == 0 and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                precision, height, width, components = struct.unpack_from(">BHHB", data, offset + 2)
                coding = marker
            elif marker == 0xE1 and orientation == 0 and data[offset + 2 : offset + 8] == b"Exif\0\0":
                (length,) = struct.unpack_from(">H", data, offset)
                orientation = exif_orientation(data[offset + 8 : offset + length])
            elif marker == 0xDA:
                # A preview in the EXIF data has an end marker too, so only markers after the picture's own first scan
                # count; data after the end (the video of a motion photograph) is allowed. OpenCV fills what is missing
                # with grey.
                complete = data.rfind(b"\xff\xd9", offset) >= 0  # from the end, where it usually is
    except (IndexError, struct.error):
        pass  # cut off
    if coding == 0:
        return None
    bounded = coding in (0xC0, 0xC1, 0xC2) and precision == 8 and components in (1, 3, 4)
    fault = "" if complete else TRUNCATED
    # A scan has 10 bytes or more: of a small file they need not be counted.
    several = complete and (coding not in (0xC0, 0xC1) or data[offset + 2] < components)
    if several and len(data) // 10 * width * height > _MAX_SCANNED_PIXELS:
        scans = 1 + data.count(b"\xff\xda", offset)
        bounded = bounded and scans * width * height <= _MAX_SCANNED_PIXELS
        if scans > _MAX_SCANS and not bounded:
            fault = f"it has {scans} scans: save it again with another program"
    return Header("JPEG", width, height, orientation or 1, fault, bounded)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and offset (of its length field) of every segment up to and including the first scan."""
    offset = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        fill = _FILL.match(data, offset)
        if fill is None:
            return
        marker = data[fill.end()]
        offset = fill.end() + 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        yield marker, offset
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", data, offset)
        offset += max(2, length)


# What OpenCV needs of a PNG file, and what is small by its nature. Others can hold compressed text or profiles of any
# size, or a whole animation.
_PNG_PLAIN = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"tIME")
)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every whole chunk, its length and checksum included, up to and including IEND."""
    offset = 8
    for _ in range(_MAX_PNG_CHUNKS):
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if offset + 12 > len(data) or end > len(data):
            return
        kind = data[offset + 4 : offset + 8]
        yield kind, offset, end
        if kind == b"IEND":
            return
        offset = end


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    orientation, kind = 1, b""
    # Chunk by chunk: OpenCV allocates a chunk's stated length, up to 1 GB, before it checks that the data is there.
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = exif_orientation(data[start + 8 : end - 4])
    return Header("PNG", width, height, orientation, "" if kind == b"IEND" else TRUNCATED)


def plain_png(data: bytes) -> bytes:
    """A complete PNG file with nothing but its first picture: itself if it has nothing else."""
    chunks = list(_png_chunks(data))
    if all(kind in _PNG_PLAIN for kind, _, _ in chunks):
        return data
    return data[:8] + b"".join(data[start:end] for kind, start, end in chunks if kind in _PNG_PLAIN)


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    complete = len(data) >= int.from_bytes(data[4:8], "little") + 8
    orientation = 1
    animated = lossless = False
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        animated = bool(data[20] & 0x02)
        offset = 12
        for _ in range(1000):
            chunk, length = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
            if len(chunk) < 4:
                break
            lossless |= chunk in (b"VP8L", b"ALPH")
            if chunk == b"EXIF":
                orientation = exif_orientation(data[offset + 8 : offset + 8 + length])
            offset += 8 + length + length % 2
    elif kind == b"VP8L":
        lossless = True
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, 26))
    else:
        return None
    bounded = not animated and not (lossless and width * height > _MAX_LOSSLESS_WEBP)
    return Header("WebP", width, height, orientation, "" if complete else TRUNCATED, bounded)


def plain_webp(data: bytes) -> bytes:
    """A WebP file with nothing but the first picture of an animation, if that fills the canvas; else itself.

    OpenCV reads animations since 4.11 only.
    """
    start = data.find(b"ANMF", 30)
    if data[12:16] != b"VP8X" or not data[20] & 0x02 or start < 0 or len(data) < start + 24:
        return data
    length = int.from_bytes(data[start + 4 : start + 8], "little")
    left_top, size = data[start + 8 : start + 14], data[start + 14 : start + 20]
    picture = data[start + 24 : start + 8 + length]
    if left_top != bytes(6) or size != data[24:30] or len(picture) < length - 16:
        return data
    transparent = 0x10 if picture.startswith(b"ALPH") else 0
    head = b"VP8X" + struct.pack("<II", 10, transparent) + size
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(picture)) + b"WEBP" + head + picture


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, bounded=False)


def _bmp(data: bytes) -> Header:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return Header("BMP", width, abs(height))


# Bytes of a value by type, and how to read it: BYTE, SHORT, LONG, LONG8 and the signed ones.
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
SAMPLES, ROWS_PER_STRIP, PLANES, TILE_WIDTH, TILE_LENGTH, SAMPLE_FORMAT = 277, 278, 284, 322, 323, 339
_TIFF_USED = frozenset((WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS_PER_STRIP, PLANES, SAMPLE_FORMAT))


def _tiff(data: bytes) -> Header | None:
    values, plain = _tiff_tags(data)
    widths, heights = values.get(WIDTH, []), values.get(LENGTH, [])
    if not widths or not heights:
        return None
    # Which of several values a decoder takes is its own business: the largest must be allowed.
    width, height = max(widths), max(heights)
    rows = values.get(ROWS_PER_STRIP, [height])[0]
    bounded = (
        plain
        and values.get(COMPRESSION, [1])[0] in (1, 5, 8, 32773, 32946)  # none, LZW, deflate, PackBits, deflate
        and values.get(PHOTOMETRIC, [1])[0] in (0, 1, 2, 3)
        and values.get(SAMPLES, [1])[0] in (1, 2, 3, 4)
        and set(values.get(BITS, [1])) <= {1, 8, 16}
        and set(values.get(SAMPLE_FORMAT, [1])) == {1}
        and values.get(PLANES, [1])[0] == 1
        and (rows <= height or rows == 2**32 - 1)
    )
    # OpenCV turns the pixels of a TIFF file itself, on every version from 4.6 to 5.0 and whatever it is asked for.
    return Header("TIFF", width, height, bounded=bounded)


def _tiff_tags(data: bytes) -> tuple[dict[int, list[int]], bool]:
    """The whole numbers of the first directory by tag, and whether every tag is there once and inside of the file.

    Only of the tags above; of one that is there twice all numbers.
    """
    end = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (directory,) = struct.unpack_from(end + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(end + ("Q" if big else "H"), data, directory)
    first, step, inline = (directory + 8, 20, 8) if big else (directory + 2, 12, 4)
    entries = data[first : first + step * min(count, 4096)]
    values: dict[int, list[int]] = {}
    tags: set[int] = set()
    plain = not big and count <= _MAX_TIFF_TAGS and len(entries) == step * count
    whole = len(entries) // step * step
    for tag, kind, length, packed in struct.iter_unpack(end + ("HHQ8s" if big else "HHI4s"), entries[:whole]):
        size = _TIFF_SIZES.get(kind, 0) * length
        offset = 0
        if size > inline:
            (offset,) = struct.unpack(end + ("Q" if big else "I"), packed)
        plain = plain and size > 0 and offset + size <= len(data) and tag not in tags
        tags.add(tag)
        if tag in _TIFF_USED and kind in _TIFF_TYPES and 0 < length <= 8 and offset + size <= len(data):
            form = f"{end}{length}{_TIFF_TYPES[kind]}"
            values.setdefault(tag, []).extend(struct.unpack_from(form, data if size > inline else packed, offset))
            plain = plain and (tag not in (WIDTH, LENGTH) or (kind in (3, 4) and length == 1))
        elif tag in (TILE_WIDTH, TILE_LENGTH) or (tag in _TIFF_USED and length > 8):
            plain = False
    return values, plain


def _pnm(data: bytes) -> Header:
    tokens: list[bytes] = []
    for line in data[2:512].splitlines():
        tokens += line.split(b"#")[0].split()
    return Header("PNM", int(tokens[0]), int(tokens[1]), bounded=data[1:2] in b"56")


def _jpeg2000(data: bytes) -> Header | None:
    # The codestream's own size (SIZ), which may differ from that of the file around it.
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return Header("JPEG 2000", right - left, bottom - top, bounded=False)


def _heif(data: bytes, kind: str) -> Header:
    # The largest of the sizes (ispe): others are of tiles, previews and transparency.
    sizes = [struct.unpack_from(">II", data, match.end() + 4) for match in re.finditer(b"ispe", data[: 2**20])]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    orientation = _heif_orientation(data) if kind == "AVIF" else 1  # of HEIC the library turns the picture
    return Header(kind, width, height, orientation, bounded=False, sized=bool(sizes))


def _heif_orientation(data: bytes) -> int:
    """The orientation that irot and imir make together, else that of the Exif block."""
    rotation = re.search(rb"\x00\x00\x00\x09irot(.)", data[: 2**20], re.DOTALL)
    mirror = re.search(rb"\x00\x00\x00\x09imir(.)", data[: 2**20], re.DOTALL)
    if rotation or mirror:
        quarters = rotation[1][0] & 3 if rotation else 0  # anti-clockwise
        if not mirror:
            return (1, 8, 3, 6)[quarters]
        # Axis 0 swaps top and bottom, 1 left and right; after the rotation.
        return (4, 5, 2, 7)[quarters] if mirror[1][0] & 1 == 0 else (2, 7, 4, 5)[quarters]
    if b"Exif" not in data[: 2**20]:
        return 1
    # The item begins with the number of bytes before the block: none, or six.
    block = re.search(rb"(?:\0\0\0\0|Exif\0\0)(?=II\*\0|MM\0\*)", data)
    return exif_orientation(data[block.end() : block.end() + 65536]) if block else 1


_READERS: dict[str, Callable[[bytes], Header | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "PNM": _pnm,
    "JPEG 2000": _jpeg2000,
    "AVIF": lambda data: _heif(data, "AVIF"),
    "HEIC": lambda data: _heif(data, "HEIC"),
}


def exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 1 where it says none, or nonsense. `Exif\\0\\0` may stand before it."""
    block = block.removeprefix(b"Exif\0\0")
    end = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if end is None:
        return 1
    try:
        (directory,) = struct.unpack_from(end + "I", block, 4)
        (count,) = struct.unpack_from(end + "H", block, directory)
        for i in range(min(count, 200)):
            tag, kind, length = struct.unpack_from(end + "HHI", block, directory + 2 + 12 * i)
            if tag == ORIENTATION:
                (value,) = struct.unpack_from(end + ("I" if kind == 4 else "H"), block, directory + 10 + 12 * i)
                return value if 1 <= value <= 8 and length == 1 else 1
    except struct.error:
        pass
    return 1
