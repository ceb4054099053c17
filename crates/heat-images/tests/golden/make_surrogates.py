"""Makes surrogates/expected.safetensors: what NumPy, SciPy and Pillow make of two small images
where src/surrogates does the same without a choice left open.

    python make_surrogates.py        # numpy, scipy, pillow, safetensors
"""
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter1d

out = Path(__file__).parent / "surrogates"
out.mkdir(exist_ok=True)
rng = np.random.default_rng(0)


def picture(height: int, width: int, phase: float) -> np.ndarray:
    """Something smooth, something sharp, a little noise."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (3 + c) + phase) + np.cos(y / (4 - c) - phase) for c in range(3)], -1)
    sharp = ((x // 5 + y // 4) % 2)[..., None] * 60
    return np.clip(128 + 45 * waves + sharp + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


def byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows first, whatever the version of Pillow does."""
    rows = Image.fromarray(image).resize((width, image.shape[0]), Image.BILINEAR)
    return np.array(rows.resize((width, height), Image.BILINEAR))


def patches(image: np.ndarray, k: int, order: np.ndarray) -> np.ndarray:
    """For sides that k divides."""
    h, w = image.shape[0] // k, image.shape[1] // k
    cut = image.reshape(k, h, k, w, 3).transpose(0, 2, 1, 3, 4).reshape(k * k, h, w, 3)
    return cut[order].reshape(k, k, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(image.shape)


def blurred(image: np.ndarray) -> np.ndarray:
    s = min(image.shape[:2]) / 16
    values = image.astype(float)
    for axis in (0, 1):
        values = gaussian_filter1d(values, s, axis=axis, mode="nearest", truncate=4.0)
    return byte(values)


def phases(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    phase = np.angle(np.fft.fft2(noise.astype(float)))
    channels = []
    for c in range(3):
        spectrum = np.fft.fft2(image[..., c].astype(float))
        own = phase.copy()
        own[0, 0] = np.angle(spectrum[0, 0])
        channels.append(np.real(np.fft.ifft2(np.abs(spectrum) * np.exp(1j * own))))
    return byte(np.stack(channels, -1))


def pink(noise: np.ndarray, alpha: float) -> np.ndarray:
    height, width = noise.shape[1:]
    f = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None] ** 2)
    f[0, 0] = 1 / max(height, width)
    channels = []
    for c in range(3):
        plane = np.real(np.fft.ifft2(np.fft.fft2(noise[c].astype(float)) / f**alpha))
        channels.append((plane - plane.mean()) / plane.std() * 64 + 128)
    return byte(np.stack(channels, -1))


def edges(image: np.ndarray) -> np.ndarray:
    gy, gx = np.gradient(image.astype(float), axis=(0, 1))
    return byte(4 * np.sqrt(gx**2 + gy**2))


def drawn(height: int, width: int) -> np.ndarray:
    """A rectangle, an ellipse over it and a line over both."""
    image = Image.new("RGB", (width, height), (10, 20, 30))
    ImageDraw.Draw(image).rectangle([2, 1, 15, 6], fill=(200, 0, 0))
    image = np.array(image)
    y, x = np.mgrid[:height, :width].astype(float)
    image[((x - 10) / 6.5) ** 2 + ((y - 5.5) / 4) ** 2 <= 1] = (0, 200, 0)
    start, end = np.array([1.0, 9.0]), np.array([19.0, 0.0])
    way = np.linspace(0, 1, 200001)[:, None] * (end - start) + start
    for row in range(height):
        for column in range(width):
            if np.hypot(*(way - [column, row]).T).min() <= 1.0:
                image[row, column] = (0, 0, 200)
    return image


square, other, wide = picture(32, 32, 0.3), picture(32, 32, 2.0), picture(10, 21, 1.0)
assert min(wide.shape[:2]) % 4 and min(wide.shape[:2]) % 8
tensors = {"square": square, "other": other, "wide": wide, "drawn": drawn(10, 21)}
order = rng.permutation(16)
tensors["order"] = order.astype(np.uint8)
tensors["jigsaw4"] = patches(square, 4, order)
# Places of the wide image begin at rows 0, 5 and columns 0, 11 (10.5, halves up).
turned = wide.copy()
turned[:5, :11] = wide[5:, 10:21]
turned[:5, 11:] = wide[5:, :10]
turned[5:, :11] = wide[:5, :11]
turned[5:, 11:] = wide[:5, 11:]
tensors["wide.jigsaw2"] = turned
tensors["mixup"] = ((square.astype(int) + other + 1) // 2).astype(np.uint8)
tensors["cutmix"] = np.concatenate([square[:, :16], other[:, 16:]], 1)
tensors["cutmix.upon"] = np.concatenate([square[:16], other[16:]], 0)
tensors["zoom"] = resized(square[5:13, 20:28], 32, 32)
tensors["wide.zoom"] = resized(wide[8:10, 3:8], 10, 21)
tensors["rotate"] = np.rot90(square, 1)
tensors["wide.rotate"] = np.rot90(wide, 2)
tensors["wide.rotate1"] = resized(np.ascontiguousarray(np.rot90(wide, 1)), 10, 21)
for name, image in (("", square), ("wide.", wide)):
    noise = rng.normal(size=image.shape).astype(np.float32)
    plane = rng.normal(size=image.shape[:2]).astype(np.float32)
    planes = rng.normal(size=(3, *image.shape[:2])).astype(np.float32)
    tensors |= {name + "values": noise, name + "plane": plane, name + "planes": planes}
    tensors[name + "blur"] = blurred(image)
    tensors[name + "invert"] = 255 - image
    tensors[name + "noise"] = byte(image + 50.0 * noise.astype(float))
    tensors[name + "phase"] = phases(image, plane)
    tensors[name + "pink"] = pink(planes, 1.25)
    tensors[name + "edges"] = edges(image)
save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, out / "expected.safetensors")
