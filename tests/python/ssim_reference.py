"""Structural similarity by scikit-image: ssim_reference.py CASES.json

The file has a list of {shape: [channels, height, width], a, b, range}; prints a list of scores. Windows are
those of edge-node/src/audit/quality.rs: the paper's Gaussian of 11 where it fits, else a uniform one.
"""

import json
import sys

import numpy as np
from skimage.metrics import structural_similarity


def score(case):
    a, b = (np.array(case[name], np.float64).reshape(case["shape"]) for name in "ab")
    least = min(case["shape"][1:])
    window = {"gaussian_weights": True, "sigma": 1.5} if least >= 11 else {"win_size": (min(7, least) - 1) // 2 * 2 + 1}
    return structural_similarity(a, b, data_range=case["range"], channel_axis=0, use_sample_covariance=False, **window)


with open(sys.argv[1]) as file:
    print(json.dumps([float(score(case)) for case in json.load(file)]))
