"""Interpreters: the path they run on, what they say of a model, and that they keep quiet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from tests.doubles.tflite_files import channel_means

from bittern.errors import ModelRefused
from bittern.model import runtime


def test_the_path_is_what_was_asked_for() -> None:
    model = channel_means()
    for path in runtime.PATHS:
        assert runtime.open_model(model, path, 1).path == path
    assert runtime.open_model(model, None, 1).path == "xnnpack"


def test_xnnpack_that_declines_is_noticed() -> None:
    declined = channel_means(scale=None)  # XNNPACK does not take a uint8 tensor without quantization
    assert runtime.open_model(declined, None, 1).path == "builtin"
    with pytest.raises(ModelRefused, match="XNNPACK was requested"):
        runtime.open_model(declined, "xnnpack", 1)


def test_inputs_and_outputs_are_those_of_the_file() -> None:
    opened = runtime.open_model(channel_means(heads=2, scale=1 / 256), None, 2)
    (image,) = opened.inputs
    assert image[1:] == ("image", (1, 8, 8, 3), "uint8", 1 / 256, 0)
    assert str(image) == "image (1, 8, 8, 3) uint8"
    assert [o.name for o in opened.outputs] == ["means_0", "means_1"]
    opened.interpreter.set_tensor(image.handle, np.full((1, 8, 8, 3), (9, 8, 7), np.uint8))
    opened.interpreter.invoke()
    for output in opened.outputs:
        assert opened.interpreter.get_tensor(output.handle).tolist() == [[9, 8, 7]]


def test_the_version_is_that_of_the_distribution() -> None:
    assert runtime.DISTRIBUTION == "ai-edge-litert"
    assert runtime.version() == metadata.version("ai-edge-litert")
    assert re.match(r"\d+\.\d+", runtime.version())


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0TFL3", b"\0\0\0\0TFL3" + bytes(99), channel_means()[:300]])
def test_what_cannot_be_loaded_is_one_line(data: bytes) -> None:
    with pytest.raises(ModelRefused, match="the runtime cannot load this model: ") as caught:
        runtime.open_model(data, None, 1)
    assert "\n" not in str(caught.value)


def test_it_prints_nothing_and_gives_stderr_back() -> None:
    program = (
        "import sys, os\n"
        "from tests.doubles.tflite_files import channel_means\n"
        "from bittern.model import runtime\n"
        "before = sorted(os.listdir('/proc/self/fd'))\n"
        "for _ in range(3):\n"
        "    runtime.open_model(channel_means(), None, 1)\n"
        "    try: runtime.open_model(b'....TFL3', None, 1)\n"
        "    except runtime.ModelRefused: pass\n"
        "assert sorted(os.listdir('/proc/self/fd')) == before\n"
        "os.write(2, b'still there')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=os.environ | {"PYTHONPATH": "."})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"still there")


def test_it_works_without_stderr() -> None:
    program = (
        "import os\n"
        "from tests.doubles.tflite_files import channel_means\n"
        "from bittern.model import runtime\n"
        "os.close(2)\n"
        "print(runtime.open_model(channel_means(), None, 1).path)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=os.environ | {"PYTHONPATH": "."})
    assert (done.returncode, done.stdout) == (0, b"xnnpack\n")
