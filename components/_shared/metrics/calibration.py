"""Calibration: does a probability of 0.8 come true in 80 % of the rows?

The expected calibration error is the mean gap between confidence and frequency over bins of equal width, weighted by
their rows: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015;
15 bins as in Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

import numpy as np

BINS = 15


def bin_of(probability: np.ndarray) -> np.ndarray:
    """Return the bin of each probability; bins are closed above, the first one below too."""
    return np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)
