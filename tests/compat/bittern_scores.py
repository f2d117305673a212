"""What Bittern answers on the runtime of this environment, in the form of plain_loop.py.

python tests/compat/bittern_scores.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from bittern import Classifier
from bittern.model import runtime
from bittern.model.bare import Bare


def main(folder: Path) -> None:
    """Print the scores of all models."""
    result = {}
    for name, stated in json.loads((folder / "models.json").read_text()).items():
        if stated["folder"] is not None:
            classifier = Classifier(Path(stated["folder"]))  # golden vectors are replayed
        else:
            size = stated["size"]
            bare = Bare(pixels=stated["pixels"], size=tuple(size) if size else None, score_of=stated["score_of"])
            classifier = Classifier(Path(stated["file"]), bare=bare, tried=True)
        answers = [classifier.classify(frame)[0] for frame in np.load(stated["frames"])]
        result[name] = [[answer.scores[label] for label in stated["labels"]] for answer in answers]
    made = {"runtime": runtime.DISTRIBUTION, "version": runtime.version(), "numpy": np.__version__, "scores": result}
    print(json.dumps(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
