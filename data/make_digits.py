"""Writes data/digits from scikit-learn's load_digits.

    pip install scikit-learn
    python data/make_digits.py [FOLDER]

The output depends on the data alone, so a second run writes the same bytes.
"""

import hashlib
import pathlib
import struct
import sys

import numpy as np
from sklearn.datasets import load_digits

UNSIGNED_BYTE = 0x08


def idx(array: np.ndarray) -> bytes:
    """The array in IDX: 0, 0, element type, rank; the sizes, big-endian; the elements."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def whole(array: np.ndarray, shape: tuple[int, ...], highest: int) -> np.ndarray:
    """The array as u8; stops where the conversion would change a value."""
    small = np.ascontiguousarray(array, dtype=np.uint8)
    if small.shape != shape or not np.array_equal(small, array) or small.max() != highest:
        sys.exit(f"load_digits is not the set this script knows: {array.shape}, up to {array.max()}")
    return small


def main() -> None:
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "digits"
    digits = load_digits()
    files = {
        "images.idx3-ubyte": idx(whole(digits.images, (1797, 8, 8), highest=16)),
        "labels.idx1-ubyte": idx(whole(digits.target, (1797,), highest=9)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sums = "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in files.items())
    (folder / "SHA256SUMS").write_bytes(sums.encode())
    print(sums, end="")


if __name__ == "__main__":
    main()
