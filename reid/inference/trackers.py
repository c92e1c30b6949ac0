"""An embedder in the callable shapes that trackers expect."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid.inference.embedder import Embedder

Frame = NDArray[np.uint8]


class DeepSortEncoder:
    """What DeepSORT calls `encoder`: `encoder(bgr_image, boxes_tlwh)`.

    The features go into `Detection(tlwh, confidence, feature)`. A box outside the frame gets
    zeros, at cosine distance 1 from everybody, so that a tracker goes on.

    Args:
        embedder: The model.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def __call__(self, image: Frame, boxes: ArrayLike) -> NDArray[np.float32]:
        """Embed the boxes of a frame.

        Args:
            image: (H, W, 3) uint8 BGR frame.
            boxes: (N, 4) left, top, width, height; N may be 0.

        Returns:
            (N, D) float32, L2-normalised.
        """
        features = self._embedder(
            image, boxes=boxes, box_format="tlwh", color="bgr", outside="zeros"
        )
        return np.asarray(features)


class BoxmotReID:
    """What BoxMOT calls a ReID model: `reid(frame_bgr, boxes_xyxy)` and `get_features`.

    A box outside the frame gets zeros, as in `DeepSortEncoder`.

    Args:
        embedder: The model.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def __call__(self, image: Any, boxes: ArrayLike | None = None) -> NDArray[np.float32]:
        """Embed the boxes of a frame, or crops.

        Args:
            image: (H, W, 3) uint8 BGR frame; without boxes one crop or a list of crops.
            boxes: (N, 4) left, top, right, bottom; N may be 0.

        Returns:
            (N, D) float32, L2-normalised.
        """
        features = self._embedder(image, boxes=boxes, color="bgr", outside="zeros")
        return np.asarray(features)

    def get_features(self, xyxys: ArrayLike, img: Frame) -> NDArray[np.float32]:
        """Embed the boxes of a frame, in BoxMOT's order of arguments."""
        return self(img, xyxys)
