"""Closing in on where a scalar changes its sign.

Axes: N pairs of points.
"""

import numpy as np

STEPS = 10
_NEAR = 1e-4  # of the difference between the values at the two ends: there the root is found


class Brackets:
    """Between the starts and the ends of N ways: shares of the way at which a root is enclosed.

    The line through both ends and the middle are tried in turn: the one finds roots of what is nearly straight at once,
    the other halves what is left where the scalar has a kink.
    """

    def __init__(self, at_start: np.ndarray, at_end: np.ndarray) -> None:
        self.low, self.high = np.zeros(len(at_start)), np.ones(len(at_end))
        self.at_low, self.at_high = at_start.astype(np.float64), at_end.astype(np.float64)
        self.enclosed = (at_start < 0) != (at_end < 0)
        self.open = self.enclosed.copy()  # [N], the roots that are not found yet
        self._near = _NEAR * np.abs(self.at_high - self.at_low)
        self._share = self._crossing()

    def propose(self, step: int) -> np.ndarray:
        """Shares of the way, of the open ones, at which to look next."""
        guess = (self.low + self.high) / 2 if step % 2 else self._crossing()
        self._share = np.where(self.open, guess, self._share)
        return self._share[self.open]

    def take(self, values: np.ndarray) -> None:
        """Go on from the values that were found there."""
        of_all = np.zeros(len(self.open))
        of_all[self.open] = values
        upper = self.open & ((of_all < 0) == (self.at_high < 0))
        lower = self.open & ~upper
        self.high, self.at_high = np.where(upper, self._share, self.high), np.where(upper, of_all, self.at_high)
        self.low, self.at_low = np.where(lower, self._share, self.low), np.where(lower, of_all, self.at_low)
        self.open &= np.abs(of_all) > self._near

    def shares(self) -> np.ndarray:
        """Of the way to the roots [N], as well as they are known; what is not enclosed has none."""
        return np.where(self.open, self._crossing(), self._share)

    def _crossing(self) -> np.ndarray:
        """Where the line through both ends is zero; the start where they are level."""
        rise = self.at_high - self.at_low
        return self.low - self.at_low * (self.high - self.low) / np.where(rise == 0, np.inf, rise)
