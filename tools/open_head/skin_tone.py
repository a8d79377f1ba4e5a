"""Colour of skin from its melanin and blood: a two-layer optical model.

Epidermis: absorption by melanin, crossed twice. Dermis: a semi-infinite scattering medium with blood (diffusion theory).
Optical properties: Jacques, "Skin Optics" (Oregon Medical Laser Center News, 1998) and "Optical properties of biological
tissues: a review" (Phys. Med. Biol. 58, 2013); haemoglobin extinction: Prahl's tabulation there; reflectance of the
dermis: Flock et al. (1989); colour matching functions: Wyman, Sloan and Shirley,
"Simple analytic approximations to the CIE XYZ color matching functions" (JCGT 2, 2013); daylight: CIE D65.
"""

from __future__ import annotations

import numpy as np

WAVELENGTHS = np.arange(400.0, 701.0, 10.0)
"""Nanometres."""
_D65 = np.array([
    82.75, 91.49, 93.43, 86.68, 104.86, 117.01, 117.81, 114.86, 115.92, 108.81, 109.35, 107.80, 104.79, 107.69, 104.41, 104.05,
    100.00, 96.33, 95.79, 88.69, 90.01, 89.60, 87.70, 83.29, 83.70, 80.03, 80.21, 82.28, 78.28, 69.72, 71.61,
])  # fmt: skip
_OXYGENATED = np.array([
    266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209, 26629, 23684, 20933, 20035, 24202, 39957, 53236, 43016,
    32613, 44496, 50104, 14401, 3200, 1506, 942, 610, 442, 368, 319, 294, 277, 276, 290,
])  # fmt: skip
_DEOXYGENATED = np.array([
    223296, 303956, 407560, 528600, 413280, 103292, 23389, 16156, 14550, 16684, 20862, 25774, 31590, 39036, 46592, 53412,
    53788, 45072, 37020, 28325, 14677, 9444, 6510, 5149, 4345, 3750, 3227, 2795, 2408, 2052, 1794,
])  # fmt: skip
"""Molar extinction of haemoglobin, 1 / (cm M)."""
OXYGEN_SATURATION = 0.75
HAEMOGLOBIN = 150.0 / 64500.0
"""Moles per litre of whole blood."""
EPIDERMIS_PATH = 0.04
"""Mean path of diffuse light through the epidermis on its way in and out, cm: about four times its 0.1 mm."""
PATH_SHAPE = 0.7
"""Path lengths of diffuse light and the density of melanosomes vary: transmission is averaged over a gamma distribution of
this shape. A single path length (infinite shape) makes dark skin far more saturated than measured skin is."""
SCATTERING, INTERNAL_REFLECTION = 1.5, 0.3
"""Scattering relative to the average of Jacques' formula, and the dermis' internal reflection. With the path's shape these
three were set so that the ladder of melanin passes by the measured "light skin" and "dark skin" of the ColorChecker
(linear Rec.709 0.539, 0.305, 0.223 and 0.171, 0.084, 0.058)."""
_XYZ_TO_REC709 = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


def _lobe(centre: float, below: float, above: float) -> np.ndarray:
    width = np.where(WAVELENGTHS < centre, below, above)
    return np.exp(-0.5 * ((WAVELENGTHS - centre) * width) ** 2)


def _to_rec709() -> np.ndarray:
    """Weights that turn a reflectance spectrum into linear Rec.709; a perfect white gives 1, 1, 1. [31, 3]"""
    x = (
        1.056 * _lobe(599.8, 0.0264, 0.0323)
        + 0.362 * _lobe(442.0, 0.0624, 0.0374)
        - 0.065 * _lobe(501.1, 0.0490, 0.0382)
    )
    y = 0.821 * _lobe(568.8, 0.0213, 0.0247) + 0.286 * _lobe(530.9, 0.0613, 0.0322)
    z = 1.217 * _lobe(437.0, 0.0845, 0.0278) + 0.681 * _lobe(459.0, 0.0385, 0.0725)
    rgb = _XYZ_TO_REC709 @ (np.stack([x, y, z]) * _D65)
    return (rgb / rgb.sum(1, keepdims=True)).T


def skin_colour(melanin: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """Diffuse albedo, linear Rec.709.

    melanin: volume fraction of melanosomes in the epidermis, 0.002 (very light) to about 1 (very dark). [...]
    blood:   volume fraction of blood in the dermis, 0.002 (pale) to 0.07. [...] -> [..., 3]
    """
    melanin, blood = (np.asarray(value, float)[..., None] for value in (melanin, blood))
    baseline = 0.244 + 85.3 * np.exp(-(WAVELENGTHS - 154.0) / 66.2)
    melanosome = 6.6e11 * WAVELENGTHS**-3.33
    extinction = OXYGEN_SATURATION * _OXYGENATED + (1 - OXYGEN_SATURATION) * _DEOXYGENATED
    whole_blood = np.log(10.0) * HAEMOGLOBIN * extinction
    scattering = SCATTERING * (2e5 * WAVELENGTHS**-1.5 + 2e12 * WAVELENGTHS**-4.0)
    depth = EPIDERMIS_PATH * (melanin * melanosome + (1 - melanin) * baseline)
    passed = (1 + depth / PATH_SHAPE) ** -PATH_SHAPE
    absorption = blood * whole_blood + (1 - blood) * baseline
    single = scattering / (scattering + absorption)
    kappa = (1 + INTERNAL_REFLECTION) / (1 - INTERNAL_REFLECTION)
    dermis = single / (1 + 2 * kappa * (1 - single) + (1 + 2 * kappa / 3) * np.sqrt(3 * (1 - single)))
    return (passed * dermis) @ _to_rec709()


def typology_angle(colour: np.ndarray) -> np.ndarray:
    """Individual typology angle atan2(L* - 50, b*) in degrees of a linear Rec.709 colour (Chardon et al. 1991). [...]"""
    xyz = colour @ np.linalg.inv(_XYZ_TO_REC709).T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.degrees(np.arctan2(116 * f[..., 1] - 66, 200 * (f[..., 1] - f[..., 2])))
