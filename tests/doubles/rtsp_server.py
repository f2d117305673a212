"""A real RTSP server, GStreamer's: a red picture with a moving ball at /red, for a password if told "locked".

Runs with the system's Python, which has GStreamer's bindings: prints its port, serves until stdin ends.
"""

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

LAUNCH = (
    "( videotestsrc is-live=true pattern=ball background-color=0xffff0000 foreground-color=0xff00ff00 "
    "! video/x-raw,format=I420,width=320,height=240,framerate=20/1 "
    "! jpegenc quality=90 ! rtpjpegpay name=pay0 pt=26 )"
)
ROLE = "viewer"

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(LAUNCH)
factory.set_shared(True)
if sys.argv[1:] == ["locked"]:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", ROLE)
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("admin", "s3cret"), token)
    server.set_auth(auth)
    permission = Gst.Structure.new_empty(ROLE)
    for what in ("access", "construct"):
        permission.set_value(f"media.factory.{what}", True)
    factory.add_role_from_structure(permission)
server.get_mount_points().add_factory("/red", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
loop = GLib.MainLoop()
GLib.io_add_watch(GLib.IOChannel.unix_new(0), GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP, lambda *_: loop.quit())
loop.run()
