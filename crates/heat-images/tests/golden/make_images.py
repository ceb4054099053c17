"""Makes images/: images of every kind, data sets in their published formats,
and what Pillow and torchvision make of them (expected.safetensors).

    python make_images.py        # Pillow, torchvision, scipy, safetensors, numpy, lmdb
"""
import gzip
import hashlib
import io
import pickle
import struct
import zlib
from pathlib import Path

import lmdb
import numpy as np
import torchvision.transforms as T
from PIL import Image
from safetensors.numpy import save_file
from scipy.io import savemat

out = Path(__file__).parent / "images"
rng = np.random.default_rng(0)
expected = {}


def image(w, h):
    """Smooth, with some texture."""
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin(x / (5 + c) + c) + np.cos(y / (7 - c)) for c in range(3)]
    smooth = 128 + 50 * np.stack(waves, -1) + rng.normal(0, 6, (h, w, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def png16(path, array, colour):
    """Sixteen bits, big-endian, which Pillow does not write in colour."""
    h, w = array.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    chunk = lambda t, d: struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))
    head = struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


rgb = Image.fromarray(image(37, 29))
alpha = Image.fromarray(rng.integers(0, 256, (29, 37), np.uint8))
rgba = rgb.copy()
rgba.putalpha(alpha)
grey = rgb.convert("L")
la = grey.copy()
la.putalpha(alpha)
exif = Image.Exif()
exif[0x0112] = 6
rgb.save(out / "rgb.jpg", quality=92)
rgb.save(out / "full.jpg", quality=95, subsampling=0)
rgb.save(out / "progressive.jpg", quality=85, progressive=True)
rgb.save(out / "rotated.jpg", quality=92, exif=exif)
grey.save(out / "grey.jpg", quality=92)
rgb.convert("CMYK").save(out / "cmyk.jpg", quality=95)
rgb.save(out / "rgb.png")
rgba.save(out / "rgba.png")
la.save(out / "la.png")
rgb.quantize(16).save(out / "palette.png")
rgb.quantize(16).save(out / "transparent.png", transparency=3)
grey.convert("1").save(out / "bits.png")
wide = rng.integers(0, 1 << 16, (29, 37, 4))
wide[:9] //= 400
png16(out / "grey16.png", wide[..., 0], 0)
png16(out / "la16.png", wide[..., :2], 4)
png16(out / "rgb16.png", wide[..., :3], 2)
png16(out / "rgba16.png", wide, 6)
rgb.save(out / "rgb.bmp")
rgb.save(out / "rgb.gif")
rgb.save(out / "rgb.webp", lossless=True)
for path in sorted(out.iterdir()):
    if path.suffix in (".jpg", ".png", ".bmp", ".gif", ".webp") and not path.name.startswith("large"):
        expected[f"rgb.{path.name}"] = np.asarray(Image.open(path).convert("RGB"))

large = Image.fromarray(image(97, 61))
large.save(out / "large.png")
shapes = {
    "exact32": [T.Resize((32, 32))],
    "exact40x50_bicubic": [T.Resize((40, 50), interpolation=T.InterpolationMode.BICUBIC)],
    "short48_crop40": [T.Resize(48), T.CenterCrop(40)],
    "short64_crop63_bicubic": [T.Resize(64, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(63)],
    "short100": [T.Resize(100)],
    "crop80": [T.CenterCrop(80)],
    "crop50": [T.CenterCrop(50)],
}
for name, steps in shapes.items():
    expected[f"transform.{name}"] = np.asarray(T.Compose(steps)(large))
full = T.Compose([T.Resize(48), T.CenterCrop(40), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
expected["tensor"] = full(large).numpy()

# CIFAR's pickles: as Python 2 wrote them, and as Python 3 with numpy does.
data = rng.integers(0, 256, (2, 3072), np.uint8)
expected["cifar"] = data.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1).copy()
head = b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
state = b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
tail = b"tbU\x06labelsq\x06]q\x07(K\x03K\x07eU\x0bbatch_labelU\x01xu."
old = head + state + b"T" + struct.pack("<i", data.size) + data.tobytes() + tail
assert (pickle.loads(old, encoding="bytes")[b"data"] == data).all()
(out / "python2.pkl").write_bytes(old)
new = {"data": data, "labels": [3, 7], "fine_labels": [99, 0], "coarse_labels": [1, 2]}
(out / "python3.pkl").write_bytes(pickle.dumps(new, protocol=2))

digits = rng.integers(0, 256, (32, 32, 3, 4), np.uint8)
savemat(out / "digits.mat", {"X": digits, "y": np.array([[1], [10], [9], [2]], np.uint8)}, do_compression=True)
expected["svhn"] = digits.transpose(3, 0, 1, 2).copy()

mnist = rng.integers(0, 256, (3, 28, 28), np.uint8)
(out / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 3, 28, 28) + mnist.tobytes(), mtime=0))
(out / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">II", 0x801, 3) + bytes([7, 0, 4]), mtime=0))
expected["idx"] = mnist

# LSUN: keys of 40 letters, images in WebP and PNG. The first database's tree
# has two levels, and one value is so large that it has pages of its own.
scenes = []


def database(name, sizes, start):
    (out / name).mkdir(exist_ok=True)
    with lmdb.open(str(out / name), map_size=1 << 20, lock=False) as env, env.begin(write=True) as txn:
        for i, (w, h) in enumerate(sizes, start):
            image_bytes = io.BytesIO()
            kind = dict(format="WEBP", lossless=True) if i % 3 else dict(format="PNG")
            Image.fromarray(image(w, h)).save(image_bytes, **kind)
            txn.put(hashlib.sha1(bytes([i])).hexdigest().encode(), image_bytes.getvalue())
    # As torchvision's LSUNClass goes through it.
    with lmdb.open(str(out / name), max_readers=1, readonly=True, lock=False, readahead=False, meminit=False) as env, env.begin() as txn:
        for key, value in txn.cursor():
            scenes.append((name, key.decode(), np.asarray(Image.open(io.BytesIO(value)).convert("RGB"))))


database("bedroom_val_lmdb", [(20, 15)] * 12 + [(60, 45)], 0)
database("tower_val_lmdb", [(20, 15)] * 2, 50)
expected["lsun"] = np.stack([p[:15, :20] for _, _, p in scenes])
(out / "lsun.txt").write_text("".join(f"{name}: {key}\n" for name, key, _ in scenes))
save_file(expected, out / "expected.safetensors")
