"""Guessing that a column is in another unit: which common conversion brings its values into the agreed range."""

import math
from dataclasses import dataclass

import numpy as np

from comity.core.contribution import Array
from comity.data.dictionary import Entry

FITS = 0.9
"""A conversion is named only if it brings at least this share of the values into the range ..."""
ASTRAY = 0.5
"""... and at least this share lies outside as it stands: a few odd values are no other unit."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """From a unit that is often found to one that was agreed.

    Attributes:
        factor: value in the agreed unit = value found · factor + offset.
        offset: in the agreed unit.
        found: the unit found; "" for any.
        agreed: the unit agreed; "" for any.
        of: part of the name of what is measured so; "" for anything.
    """

    factor: float
    offset: float = 0.0
    found: str = ""
    agreed: str = ""
    of: str = ""

    def __call__(self, x: Array) -> Array:
        """(rows,) float64 in the agreed unit."""
        return np.asarray(x * self.factor + self.offset)

    def __str__(self) -> str:
        """As one would write it down.

        Example:
            >>> str(Conversion(88.4, found="mg/dL", agreed="µmol/L")), str(Conversion(1.8, 32.0))
            ('× 88.4 (mg/dL to µmol/L)', '× 1.8 + 32')
        """
        shift = f" {'+' if self.offset > 0 else '−'} {abs(self.offset):.4g}" if self.offset else ""
        names = f" ({self.found} to {self.agreed})" if self.found and self.agreed else ""
        return f"× {self.factor:.4g}{shift}{names}"


COMMON = (
    *(Conversion(f) for f in (0.001, 1000.0, 10.0, 0.1, 100.0, 0.01)),
    Conversion(2.54, found="in", agreed="cm"),
    Conversion(0.3937, found="cm", agreed="in"),
    Conversion(0.4536, found="lb", agreed="kg", of="weight"),
    Conversion(2.2046, found="kg", agreed="lb", of="weight"),
    Conversion(18.0, found="mmol/L", agreed="mg/dL", of="glucose"),
    Conversion(0.0555, found="mg/dL", agreed="mmol/L", of="glucose"),
    Conversion(88.4, found="mg/dL", agreed="µmol/L", of="creatinin"),
    Conversion(0.0113, found="µmol/L", agreed="mg/dL", of="creatinin"),
    Conversion(5 / 9, -160 / 9, "°F", "°C", "temp"),
    Conversion(1.8, 32.0, "°C", "°F", "temp"),
)


def guess(x: Array, entry: Entry) -> tuple[Conversion, float] | None:
    """The conversion that would bring most values of a column into its range.

    Of those that fit within two hundredths of the best, the one that is usual for the column's name, then for
    its unit, then the one that puts the median nearest to the middle of the range (by ratio where all is
    above 0). A guess: wide ranges fit several.

    Args:
        x: (rows,) float64, without missing values.
        entry: with a range.

    Returns:
        The conversion and the share of the values that it fits, or None where none fits, or where most
        values lie in the range already.

    Example:
        >>> creatinine = Entry("creatinine", "number", "µmol/L", (20, 1500))
        >>> conversion, share = guess(np.array([0.7, 0.9, 1.1, 5.2]), creatinine)
        >>> str(conversion), share
        ('× 88.4 (mg/dL to µmol/L)', 1.0)
    """
    if entry.range is None or not x.size or 1 - _share(x, entry.range) < ASTRAY:
        return None
    tried = [(_share(conversion(x), entry.range), conversion) for conversion in COMMON]
    best = max(share for share, _ in tried)
    if best < FITS:
        return None
    close = [(share, conversion) for share, conversion in tried if share >= max(best - 0.02, FITS)]
    median = float(np.median(x))
    share, conversion = min(close, key=lambda pair: _unlikely(pair[1], entry, median))
    return conversion, share


def _share(x: Array, ends: tuple[float, float]) -> float:
    return float(np.mean((x >= ends[0]) & (x <= ends[1])))


def _unlikely(conversion: Conversion, entry: Entry, median: float) -> tuple[bool, bool, float]:
    name, unit = entry.name.casefold(), _folded(entry.unit)
    other_name = not (conversion.of and conversion.of in name)
    other_unit = not (unit and unit == _folded(conversion.agreed))
    assert entry.range is not None
    low, high = entry.range
    placed = float(conversion(np.array([median]))[0])
    if low > 0 and placed > 0:
        return other_name, other_unit, abs(math.log(placed) - (math.log(low) + math.log(high)) / 2)
    return other_name, other_unit, abs(placed - (low / 2 + high / 2))


def _folded(unit: str) -> str:
    return unit.strip().casefold().replace("μ", "µ").replace("umol", "µmol").replace("°", "").removeprefix("deg ")
