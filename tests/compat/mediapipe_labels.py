"""What MediaPipe Tasks' `ImageClassifier` answers with the shipped models: labels by name, best first, as JSON.

python tests/compat/mediapipe_labels.py FOLDER
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def main(folder: Path) -> None:
    """Print label and score of all labels, for each picture of each shipped model."""
    result = {}
    for name, stated in json.loads((folder / "models.json").read_text()).items():
        if stated["folder"] is None:
            continue
        options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=stated["file"]))
        with vision.ImageClassifier.create_from_options(options) as classifier:
            answers = []
            for picture in np.load(stated["pictures"]):
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
                (head,) = classifier.classify(image).classifications
                answers.append([[category.category_name, category.score] for category in head.categories])
        result[name] = answers
    print(json.dumps({"version": metadata.version("mediapipe"), "answers": result}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
