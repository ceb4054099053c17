"""Small images in the forms that the formats allow, and what Pillow makes of them.

python make_forms.py, with Pillow 13, NumPy and safetensors, writes `forms/` beside this script."""

import io
import pathlib
import pickle
import struct

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).parent / "forms"
OUT.mkdir(exist_ok=True)
RNG = np.random.default_rng(7)
EXPECTED = {}


def picture(w, h):
    """Smooth colours, with some noise."""
    y, x = np.mgrid[:h, :w]
    base = np.stack([128 + 100 * np.sin(x / 5 + c) * np.cos(y / (4 + c)) for c in range(3)], -1)
    return np.clip(base + RNG.normal(0, 12, base.shape), 0, 255).astype(np.uint8)


def keep(name, data):
    (OUT / name).write_bytes(data)
    EXPECTED[f"{name}.rgb"] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def saved(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


# JPEG: an encoder of any sampling, baseline, with the tables of the standard's Annex K.

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))
DC = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], list(range(12))
QUANT = np.array([[4 + 2 * (x + y) for x in range(8)] for y in range(8)])
DCT = np.array([[(0.5 if u else 8**-0.5) * np.cos((2 * x + 1) * u * np.pi / 16) for x in range(8)] for u in range(8)])


def codes(counts, symbols):
    out, code, at = {}, 0, 0
    for length, n in enumerate(counts, 1):
        for _ in range(n):
            out[symbols[at]] = (code, length)
            code, at = code + 1, at + 1
        code <<= 1
    return out




def jpeg(image, sampling, restart=0, adobe=None):
    """Planes are sampled by means of blocks."""
    h, w, n = image.shape
    symbols = [0, 0xF0] + [run << 4 | size for run in range(16) for size in range(1, 11)]
    ac = ([0] * 7 + [len(symbols)] + [0] * 8, symbols)
    dc_codes, ac_codes = codes(*DC), codes(*ac)
    hm, vm = max(s[0] for s in sampling), max(s[1] for s in sampling)
    rows, columns = -(-h // (8 * vm)), -(-w // (8 * hm))
    padded = np.pad(image, ((0, rows * 8 * vm - h), (0, columns * 8 * hm - w), (0, 0)), mode="edge")
    planes = []
    for c, (sh, sv) in enumerate(sampling):
        ys = np.arange(rows * 8 * sv) * vm // sv
        xs = np.arange(columns * 8 * sh) * hm // sh
        planes.append(padded[..., c][np.ix_(ys, xs)].astype(float) - 128)
    bits, last = [], [0] * n

    def put(code, length):
        bits.extend((code >> i) & 1 for i in reversed(range(length)))

    def number(v):
        size = int(abs(v)).bit_length()
        return size, (v if v >= 0 else v + (1 << size) - 1)

    out = bytearray()

    def flush():
        while len(bits) % 8:
            bits.append(1)
        for byte in np.packbits(np.array(bits, np.uint8)).tolist():
            out.append(byte)
            if byte == 255:
                out.append(0)
        bits.clear()

    for mcu in range(rows * columns):
        if restart and mcu and mcu % restart == 0:
            flush()
            out.extend([255, 0xD0 + (mcu // restart - 1) % 8])
            last = [0] * n
        my, mx = divmod(mcu, columns)
        for c, (sh, sv) in enumerate(sampling):
            for by in range(sv):
                for bx in range(sh):
                    y, x = 8 * (my * sv + by), 8 * (mx * sh + bx)
                    block = DCT @ planes[c][y : y + 8, x : x + 8] @ DCT.T
                    q = np.rint(block / QUANT).astype(int).ravel()[ZIGZAG]
                    size, v = number(int(q[0]) - last[c])
                    last[c] = int(q[0])
                    put(*dc_codes[size])
                    put(v, size)
                    run = 0
                    end = max([i for i in range(1, 64) if q[i]], default=0)
                    for i in range(1, end + 1):
                        if q[i] == 0:
                            run += 1
                            continue
                        while run > 15:
                            put(*ac_codes[0xF0])
                            run -= 16
                        size, v = number(int(q[i]))
                        put(*ac_codes[run << 4 | size])
                        put(v, size)
                        run = 0
                    if end < 63:
                        put(*ac_codes[0])
    flush()

    def segment(marker, body):
        return bytes([255, marker]) + struct.pack(">H", len(body) + 2) + bytes(body)

    def table(kind, counts, symbols):
        return segment(0xC4, [kind] + list(counts) + list(symbols))

    frame = struct.pack(">BHHB", 8, h, w, n)
    frame += b"".join(bytes([c + 1, s[0] << 4 | s[1], 0]) for c, s in enumerate(sampling))
    scan = bytes([n]) + b"".join(bytes([c + 1, 0]) for c in range(n)) + bytes([0, 63, 0])
    head = b"\xff\xd8"
    if adobe is not None:
        head += segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    head += segment(0xDB, [0] + [int(QUANT.ravel()[i]) for i in ZIGZAG])
    head += segment(0xC0, frame) + table(0x00, *DC) + table(0x10, *ac)
    if restart:
        head += segment(0xDD, struct.pack(">H", restart))
    return head + segment(0xDA, scan) + bytes(out) + b"\xff\xd9"


SAMPLINGS = {
    "440": [(1, 2), (1, 1), (1, 1)],
    "411": [(4, 1), (1, 1), (1, 1)],
    "410": [(4, 2), (1, 1), (1, 1)],
    "441": [(1, 4), (1, 1), (1, 1)],
    "coarse": [(1, 1), (2, 2), (2, 2)],
    "coarse_across": [(1, 1), (2, 1), (2, 1)],
    "coarse_down": [(1, 1), (1, 2), (1, 2)],
    "crossed": [(2, 1), (1, 2), (1, 1)],
    "uneven": [(2, 2), (2, 1), (1, 2)],
    "three": [(3, 1), (1, 1), (1, 1)],
    "large": [(2, 1), (2, 1), (2, 1)],
}
for name, sampling in SAMPLINGS.items():
    for w, h in [(45, 37), (3, 5), (1, 1)]:
        keep(f"{name}_{w}x{h}.jpg", jpeg(picture(w, h), sampling))
keep("restarts.jpg", jpeg(picture(45, 37), SAMPLINGS["440"], restart=2))
keep("rgb_of_adobe.jpg", jpeg(picture(21, 13), [(1, 1)] * 3, adobe=0))
keep("cmyk_of_adobe.jpg", jpeg(np.dstack([picture(21, 13), picture(21, 13)[..., :1]]), [(1, 1)] * 4, adobe=0))
keep("ycck.jpg", jpeg(np.dstack([picture(21, 13), picture(21, 13)[..., :1]]), [(2, 2), (1, 1), (1, 1), (2, 2)], adobe=2))
keep("grey_sampled.jpg", jpeg(picture(21, 13)[..., :1], [(2, 2)]))
for quality in (30, 75, 100):
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            options = dict(quality=quality, subsampling=subsampling, progressive=progressive)
            name = f"q{quality}_{subsampling.replace(':', '')}{'_progressive' if progressive else ''}.jpg"
            keep(name, saved(Image.fromarray(picture(43, 29)), "JPEG", **options))
for w in (1, 2, 3, 4, 5):
    for subsampling in ("4:2:2", "4:2:0"):
        name = f"narrow{w}_{subsampling.replace(':', '')}.jpg"
        keep(name, saved(Image.fromarray(picture(w, 7)), "JPEG", quality=80, subsampling=subsampling))
        name = f"low{w}_{subsampling.replace(':', '')}.jpg"
        keep(name, saved(Image.fromarray(picture(9, w)), "JPEG", quality=80, subsampling=subsampling))
keep("grey.jpg", saved(Image.fromarray(picture(21, 13)).convert("L"), "JPEG", quality=70, progressive=True))
exif = Image.Exif()
exif[0x0112] = 6
keep("turned.jpg", saved(Image.fromarray(picture(21, 13)), "JPEG", exif=exif))
keep("restarts_progressive.jpg", saved(Image.fromarray(picture(43, 29)), "JPEG", progressive=True, restart_marker_blocks=2))


# GIF, written byte by byte: LZW that says "clear" before each code.


def gif(screen, frame, palette=None, local=None, transparent=None, background=0, interlaced=False):
    """Pixels of 0 to 3."""
    left, top, w, h = frame
    pixels = RNG.integers(0, 4, (h, w))
    head = struct.pack("<HHBBB", *screen, 0x80 | 1 if palette is not None else 0, background, 0)
    out = b"GIF89a" + head + (bytes(palette) if palette is not None else b"")
    if transparent is not None:
        out += b"\x21\xf9\x04" + bytes([1, 0, 0, transparent, 0])
    flags = (0x81 if local is not None else 0) | (0x40 if interlaced else 0)
    out += b"\x2c" + struct.pack("<HHHHB", left, top, w, h, flags)
    out += bytes(local) if local is not None else b""
    order = range(h)
    if interlaced:
        order = [*range(0, h, 8), *range(4, h, 8), *range(2, h, 4), *range(1, h, 2)]
    bits = 0
    count = 0
    for v in pixels[list(order)].ravel():
        for code in (4, int(v)):
            bits |= code << count
            count += 3
    bits |= 5 << count
    count += 3
    data = bits.to_bytes(-(-count // 8), "little")
    out += b"\x02"
    for at in range(0, len(data), 255):
        out += bytes([len(data[at : at + 255])]) + data[at : at + 255]
    return out + b"\0\x3b"


COLOURS = [200, 10, 20, 30, 210, 40, 50, 60, 220, 90, 90, 10]
OTHERS = [1, 2, 3, 70, 80, 90, 11, 99, 5, 250, 240, 230]
keep("whole.gif", gif((9, 7), (0, 0, 9, 7), COLOURS))
keep("offset.gif", gif((12, 11), (3, 2, 5, 6), COLOURS))
keep("offset_background.gif", gif((12, 11), (3, 2, 5, 6), COLOURS, background=2))
keep("offset_transparent.gif", gif((12, 11), (3, 2, 5, 6), COLOURS, transparent=3))
keep("offset_local.gif", gif((12, 11), (3, 2, 5, 6), COLOURS, local=OTHERS, background=1))
keep("beyond.gif", gif((6, 5), (3, 2, 5, 6), COLOURS))
keep("beyond_transparent.gif", gif((6, 5), (3, 2, 5, 6), COLOURS, transparent=1))
keep("interlaced.gif", gif((12, 13), (1, 1, 9, 11), COLOURS, interlaced=True))
frames = [Image.fromarray(picture(9, 7)).quantize(16) for _ in range(3)]
keep("animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=0, disposal=2))

# TIFF.
image = Image.fromarray(picture(21, 13))
for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
    keep(f"rgb_{compression}.tif", saved(image, "TIFF", compression=compression))
for mode in ("L", "1", "P", "RGBA", "CMYK", "LA"):
    keep(f"{mode}.tif", saved(image.convert(mode), "TIFF"))
keep("predicted.tif", saved(image, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}))
sixteen = RNG.integers(0, 700, (13, 21)).astype(np.uint16)
keep("grey16.tif", saved(Image.fromarray(sixteen), "TIFF"))
keep("grey32.tif", saved(Image.fromarray(sixteen.astype(np.int32)), "TIFF"))
keep("float.tif", saved(Image.fromarray((sixteen / 2.5 - 20).astype(np.float32)), "TIFF"))
for orientation in range(2, 9):
    keep(f"turned{orientation}.tif", saved(image, "TIFF", tiffinfo={274: orientation}))
pages = [Image.fromarray(picture(8, 6)) for _ in range(2)]
keep("pages.tif", saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))


def tiff(tags, data, order="<"):
    """One strip; tags: number → list of shorts."""
    tags = {**tags, 273: [0], 279: [len(data)]}
    size = 2 + 12 * len(tags) + 4
    extra = b""
    entries = b""
    for tag in sorted(tags):
        values = tags[tag]
        if tag == 273:
            values = [8 + size + sum(2 * len(v) for v in tags.values() if len(v) > 2)]
        if len(values) > 2:
            entries += struct.pack(order + "HHII", tag, 3, len(values), 8 + size + len(extra))
            extra += struct.pack(order + f"{len(values)}H", *values)
        else:
            entries += struct.pack(order + "HHI", tag, 3, len(values))
            entries += struct.pack(order + "2H", *(values + [0])[:2])
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(tags)) + entries + bytes(4) + extra + data


def shape(w, h, bits, photometric, **more):
    return {256: [w], 257: [h], 258: bits, 259: [1], 262: [photometric], 277: [len(bits)], 278: [h], **more}


w, h = 7, 5
keep("big_endian.tif", tiff(shape(w, h, [8] * 3, 2), picture(w, h).tobytes(), ">"))
keep("rgb16_big.tif", tiff(shape(w, h, [16] * 3, 2), RNG.integers(0, 65536, (h, w, 3)).astype(">u2").tobytes(), ">"))
keep("rgb16.tif", tiff(shape(w, h, [16] * 3, 2), RNG.integers(0, 65536, (h, w, 3)).astype("<u2").tobytes()))
keep("white_is_zero.tif", tiff(shape(w, h, [8], 0), picture(w, h)[..., 0].tobytes()))
keep("white_is_zero1.tif", tiff(shape(w, h, [1], 0), RNG.bytes(h)))
keep("black_is_zero1.tif", tiff(shape(w, h, [1], 1), RNG.bytes(h)))
keep("grey4.tif", tiff(shape(w, h, [4], 1), RNG.bytes(4 * h)))
keep("grey2.tif", tiff(shape(w, h, [2], 1), RNG.bytes(2 * h)))
palette = {320: RNG.integers(0, 65536, 48).tolist()}
keep("palette4.tif", tiff({**shape(w, h, [4], 3), **palette}, RNG.bytes(4 * h)))
keep("premultiplied.tif", tiff({**shape(w, h, [8] * 4, 2), 338: [1]}, RNG.bytes(4 * w * h)))
keep("unused.tif", tiff({**shape(w, h, [8] * 4, 2), 338: [0]}, RNG.bytes(4 * w * h)))

# PNM.
grey = picture(w, h)[..., 0]
bits = RNG.integers(0, 2, (h, w))
keep("raw.ppm", b"P6 7 5 255\n" + picture(w, h).tobytes())
keep("comments.ppm", b"P6\n# made by hand\n7 # columns\n5\n255\n" + picture(w, h).tobytes())
keep("most100.ppm", b"P6 7 5 100\n" + RNG.integers(0, 101, (h, w, 3)).astype(np.uint8).tobytes())
keep("most1000.ppm", b"P6 7 5 1000\n" + RNG.integers(0, 1001, (h, w, 3)).astype(">u2").tobytes())
keep("raw.pgm", b"P5 7 5 255\n" + grey.tobytes())
keep("most15.pgm", b"P5 7 5 15\n" + RNG.integers(0, 16, (h, w)).astype(np.uint8).tobytes())
keep("most65535.pgm", b"P5 7 5 65535\n" + RNG.integers(0, 600, (h, w)).astype(">u2").tobytes())
keep("most600.pgm", b"P5 7 5 600\n" + RNG.integers(0, 5, (h, w)).astype(">u2").tobytes())
keep("raw.pbm", b"P4 7 5\n" + np.packbits(bits, axis=1).tobytes())
text = lambda a: "\n".join(" ".join(map(str, row)) for row in a.reshape(h, -1).tolist()).encode()
keep("plain.ppm", b"P3 7 5 255\n" + text(picture(w, h)) + b"\n")
keep("plain.pgm", b"P2\n7 5\n31\n" + text(RNG.integers(0, 32, (h, w))) + b"\n")
keep("plain.pbm", b"P1\n7 5\n" + text(bits) + b"\n")
keep("plain_dense.pbm", b"P1\n7 5\n" + text(bits).replace(b" ", b"") + b"\n")

# CIFAR's batch, pickled again by other programs: keys and data as bytes in protocol 2, labels as
# an array, other protocols, and the images the other way round, which must be refused.
IMAGES = OUT.parent / "images"
batch = pickle.loads((IMAGES / "python3.pkl").read_bytes(), encoding="bytes")
text = {(k.decode() if isinstance(k, bytes) else k): v for k, v in batch.items()}
labels = text["labels"]
keys = {k.encode(): v for k, v in text.items()}
for name, value, protocol in [
    ("bytes_keys", keys, 2),
    ("text_keys", text, 2),
    ("protocol3", keys, 3),
    ("protocol4", keys, 4),
    ("protocol5", text, 5),
    ("labels_array", {**keys, b"labels": np.array(labels, np.int64)}, 2),
    ("labels_column", {**text, "labels": np.array(labels, np.uint8)}, 4),
    ("labels_tuple", {**text, "labels": tuple(labels)}, 2),
    ("planes", {**text, "data": text["data"].reshape(-1, 3, 32, 32)}, 4),
    ("pixels", {**text, "data": text["data"].reshape(-1, 32, 32, 3)}, 4),
    ("columns", {**text, "data": np.asfortranarray(text["data"])}, 2),
]:
    (IMAGES / f"again_{name}.pkl").write_bytes(pickle.dumps(value, protocol))

save_file(EXPECTED, OUT / "expected.safetensors")
