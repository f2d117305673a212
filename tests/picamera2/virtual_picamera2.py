"""Make PyPI's picamera2 run on libcamera's virtual camera: import this before the code under test.

Three things of a Raspberry Pi are missing there, and are replaced:
  pykms           imported by picamera2's DRM preview at start-up          an empty stand-in
  raw modes       picamera2 asks for them; a virtual camera has none       one made-up mode; never streamed
  /dev/dma_heap   the memory of picamera2's buffers                        memfds, two planes for NV12
libcamera itself needs fake_udmabuf.so in LD_PRELOAD where the kernel has no /dev/udmabuf.
"""

from __future__ import annotations

import mmap
import os
import sys
import types
from typing import Any


class _AnyName:
    def __getattr__(self, name: str) -> str:
        return name


if "pykms" not in sys.modules:
    _pykms = types.ModuleType("pykms")
    _pykms.__dict__.update(PixelFormat=_AnyName(), Card=None)
    sys.modules["pykms"] = _pykms

import libcamera  # noqa: E402  (picamera2 must find the stand-in above)
import picamera2.picamera2 as _picamera2  # noqa: E402
from picamera2.allocators import DmaAllocator  # noqa: E402


class _NoHeap:
    def close(self) -> None:
        pass


class MemfdAllocator(DmaAllocator):  # type: ignore[misc]  # picamera2 has no types
    """Buffers in memfds instead of contiguous memory."""

    def __init__(self) -> None:
        self.dmaHeap = _NoHeap()
        self.mapped_buffers: dict[Any, mmap.mmap] = {}
        self.mapped_buffers_used: dict[int, bool] = {}
        self.frame_buffers: dict[Any, list[Any]] = {}
        self.open_fds: list[int] = []
        self.libcamera_fds: list[int] = []
        self.sync = self.DmaSync

    def allocate(self, libcamera_config: Any, _: Any) -> None:
        """Make the buffers of every stream of a configuration."""
        self.libcamera_fds = []
        self.cleanup()
        for fd in self.open_fds:
            os.close(fd)
        self.frame_buffers, self.open_fds = {}, []
        for stream in libcamera_config:
            made = []
            for number in range(stream.buffer_count):
                fd = os.memfd_create(f"picamera2-{number}", os.MFD_CLOEXEC)
                os.ftruncate(fd, stream.frame_size)
                self.open_fds.append(fd)
                luma = stream.stride * stream.size.height
                planes = []
                for offset, length in ((0, luma), (luma, stream.frame_size - luma)):
                    if length > 0:
                        plane = libcamera.FrameBuffer.Plane()
                        plane.fd, plane.offset, plane.length = fd, offset, length
                        planes.append(plane)
                buffer = libcamera.FrameBuffer(planes)
                self.libcamera_fds.append(buffer.planes[0].fd)
                self.mapped_buffers_used[buffer.planes[0].fd] = False
                self.mapped_buffers[buffer] = mmap.mmap(
                    fd, stream.frame_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
                )
                made.append(buffer)
            self.frame_buffers[stream.stream] = made


_real_raw_modes = _picamera2.Picamera2._get_raw_modes


def _raw_modes(camera: Any) -> Any:
    try:
        return _real_raw_modes(camera)
    except AttributeError:
        areas = camera.camera.properties.get(libcamera.properties.PixelArrayActiveAreas)
        area = areas[0] if areas else libcamera.Rectangle(0, 0, 1920, 1080)
        return [{"format": "SRGGB10", "size": (area.size.width, area.size.height)}]


_picamera2.DmaAllocator = MemfdAllocator
_picamera2.Picamera2._get_raw_modes = _raw_modes
