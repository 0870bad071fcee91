"""What a training image may undergo, by the kind of image.

A preset only makes what could have been acquired: no flips where a body has a left and a right.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationPreset:
    """The ranges that a preset draws from, each even around its middle.

    Attributes:
        flips: Whether an image may be mirrored and turned by 90 degrees.
        rotation: Largest angle in degrees, about each axis.
        translation: Largest shift as a part of the image's size.
        zoom: Largest change of size: factors from ``1 - zoom`` to ``1 + zoom``.
        gamma: Largest ``|log|`` of the exponent of the grey curve.
        gain: Largest change of contrast: factors from ``1 - gain`` to ``1 + gain``.
        offset: Largest change of brightness, in standard deviations of the image.
        noise: Largest standard deviation of added noise, in those of the image.
        mirrors: Whether an image may be mirrored along each axis, and not turned by 90 degrees.
        moved: Chance that an image is turned, and by itself that it is zoomed.
        rare: Whether the changes of :mod:`rare_changes` befall some of the images.
    """

    flips: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    zoom: float = 0.0
    gamma: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    mirrors: bool = False
    moved: float = 1.0
    rare: bool = False

    @property
    def moves(self) -> bool:
        """Whether pixels are interpolated."""
        return bool(self.rotation or self.translation or self.zoom)


PRESETS: dict[str, AugmentationPreset] = {
    "none": AugmentationPreset(),
    "light": AugmentationPreset(translation=0.05, gain=0.1, offset=0.1),
    "xray": AugmentationPreset(rotation=7, translation=0.05, zoom=0.1, gain=0.1, offset=0.1),
    # Hounsfield units mean something: CT keeps its grey values.
    "ct": AugmentationPreset(rotation=10, translation=0.05, zoom=0.1, noise=0.05),
    "mr": AugmentationPreset(
        rotation=10, translation=0.05, zoom=0.1, gamma=0.3, gain=0.1, noise=0.1
    ),
    "dermoscopy": AugmentationPreset(
        flips=True, rotation=15, translation=0.05, zoom=0.15, gain=0.15, offset=0.15
    ),
    "ultrasound": AugmentationPreset(
        rotation=10, translation=0.05, zoom=0.1, gamma=0.3, gain=0.1, noise=0.1
    ),
    "histology": AugmentationPreset(flips=True, gain=0.15, offset=0.15, noise=0.05),
    # Isensee et al. 2021, supplementary note 4; a patient may lie on either side there.
    "nnunet": AugmentationPreset(mirrors=True, rotation=30, zoom=0.3, moved=0.2, rare=True),
}
