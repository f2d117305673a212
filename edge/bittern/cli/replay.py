"""`bittern replay`: a clip through the daemon's own pipeline at full speed, and thresholds found on it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from bittern.cli.common import one_blas_thread, print_json, warn
from bittern.errors import BitternError, ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.decision.decision import Settings
    from bittern.evaluation.tuning import Figures, Interval, Judged, Target, Track
    from bittern.events import Event
    from bittern.frames import Frame, Source
    from bittern.model.classifier import Classifier


@click.command(epilog="Example: bittern replay clip --labels clip.csv --tune 'at most 1 false alarm an hour'")
@click.argument("clip", type=click.Path())
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file, as for `bittern watch`.")
@click.option("--model", "models", multiple=True, help="Name or folder; may be given again.  [default: stop_sign]")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="CSV start_s,end_s,label: when something was there to be found."
)
@click.option("--tune", metavar="BOUND", help="Find thresholds: 'at most N false alarms an hour', or 'a day'.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="PNG of scores over time, thresholds and alarms."
)
@click.option("--json", "as_json", is_flag=True, help="With --tune: one JSON object for each label instead of TOML.")
@click.pass_context
def replay(
    ctx: click.Context,
    clip: str,
    config_file: Path | None,
    models: tuple[str, ...],
    labels: Path | None,
    tune: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run a recorded clip through the very steps of `bittern watch`, as fast as they go, and print the events.

    CLIP is what `bittern record` left, a video file, or a folder of pictures. Time is the clip's own: a recording
    replays as it was taken, and gives the same events as on that day, with ids of their own; of another clip `time`
    counts from 1970, for want of the right one. The same clip gives the same lines again.

    --labels says from when to when something was there, in seconds since the first frame. An interval is found if an
    alarm goes on within it; an alarm that goes on elsewhere is false.

    --tune tries every score that occurs as threshold, four shares of it as `off`, and every N of M up to 5 of 8, on the
    scores of every frame, without the gate. Of those that keep the bound on this clip it takes the ones that find most
    intervals, then the shortest delay, and prints them as TOML for the configuration.

    Exit code 1 if a picture could not be read, or --tune found nothing.
    """
    one_blas_thread()
    if tune is not None and labels is None:
        raise click.UsageError("--tune needs --labels", ctx)
    if as_json and tune is None:
        raise click.UsageError("--json goes with --tune: events are JSON lines anyhow", ctx)
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot: no folder {plot.parent}")
    import msgspec

    from bittern.config import schema
    from bittern.decision import decision
    from bittern.evaluation import tuning

    target = tuning.parse_target(tune) if tune is not None else None
    intervals = tuning.read_intervals(labels) if labels is not None else []
    settings = schema.load(config_file) if config_file else schema.WatchConfig()
    if models:
        settings = msgspec.structs.replace(settings, models=models)
    if target is not None:
        settings = msgspec.structs.replace(settings, gate=schema.GateConfig(enabled=False))
    classifiers = _open_models(settings)
    of = decision.settings_of({c.name: c.heads for c in classifiers}, settings.decision, settings.alarm)
    _check_labels(labels, intervals, [label for _, _, label in of])
    with _open(clip) as source:
        played = _play(source, classifiers, settings, print_events=target is None)
    if played.frames == 0:
        raise BitternError(f"{clip}: no frame could be read")
    failed = source.skipped > 0
    if not played.tracks:
        if intervals or target is not None or plot is not None:
            raise BitternError(f"{clip}: no frame shows anything: black, white or of one colour throughout")
        of = {}
    panels: list[tuple[Track, Judged]] = []
    told: list[Figures] = []
    for track, now in zip(played.tracks, of.values(), strict=True):
        mine = [interval for interval in intervals if interval.label == track.label]
        judged = tuning.judge(track, mine, now, played.alarms.get((track.model, track.task, track.label), []))
        if target is not None and not mine:
            warn(f"{track.model}, {track.label}: no interval in {labels}: its settings stay as they are")
        elif target is not None:
            try:
                judged = _tuned(track, mine, target, now)
                told.append(tuning.figures(track, judged))
            except tuning.NothingFits as error:
                warn(str(error))
                failed = True
                judged = error.nearest or judged
        elif mine:
            for line in tuning.lines(tuning.figures(track, judged)):
                warn(line)
        panels.append((track, judged))
    if target is not None and as_json:
        for figures in told:
            print_json(figures)
    elif target is not None and told:
        click.echo("\n".join(_toml(clip, told, target, settings, len(of))))
    if plot is not None:
        from bittern.evaluation import timeline

        timeline.write(plot, panels, intervals)
    if failed:
        ctx.exit(1)


class _Played(NamedTuple):
    """What came of a clip; alarms by model, task and label, from when to when in s since the first frame."""

    frames: int
    tracks: list[Track]
    alarms: dict[tuple[str, str, str], list[tuple[float, float]]]


def _open_models(settings: WatchConfig) -> list[Classifier]:
    from bittern.model.classifier import Classifier

    classifiers = [Classifier(m, threads=settings.threads) for m in settings.models]
    for classifier in classifiers:
        if classifier.manifest is None:
            warn(f"{classifier.name}: no manifest: not verified")
    return classifiers


def _check_labels(file: Path | None, intervals: Sequence[Interval], known: Sequence[str]) -> None:
    for interval in intervals:
        if interval.label not in known:
            names, hint = ", ".join(dict.fromkeys(map(repr, known))), did_you_mean(interval.label, known)
            raise ConfigurationError(f"{file}: label {interval.label!r} raises no alarm, {names} does{hint}")


def _open(clip: str) -> Source:
    import logging

    from bittern.sources.clip import ClipSource, is_clip
    from bittern.sources.registry import open_source

    logging.basicConfig(format="bittern: %(message)s", level=logging.INFO)
    if is_clip(Path(clip)):
        return ClipSource(Path(clip))
    source = open_source(clip)
    if source.live:
        source.close()
        raise ConfigurationError(f"{clip}: is a camera: make a clip of it with `bittern record`")
    return source


def _play(source: Source, classifiers: Sequence[Classifier], settings: WatchConfig, *, print_events: bool) -> _Played:
    """Take every frame of a source, in its own time."""
    from random import Random
    from time import perf_counter

    import msgspec
    import numpy as np

    from bittern import events
    from bittern.camera.scene_watch import View
    from bittern.decision.pipeline import Pipeline
    from bittern.evaluation.tuning import Track
    from bittern.sources.clip import ClipSource

    random = Random()
    alarms: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    first_ns: int | None = None

    def sink(event: Event) -> None:
        if print_events:
            sys.stdout.buffer.write(events.to_line(event))
        mine = alarms.setdefault((str(event.model), str(event.task), str(event.label)), [])
        at_s = (event.monotonic_ns - (first_ns or 0)) / 1e9
        if event.type == "alarm.on":
            mine.append((at_s, math.inf))
        else:
            mine[-1] = mine[-1][0], at_s

    pipeline = Pipeline(classifiers, settings, sink, new_id=lambda time_ns: events.uuid7(time_ns, random))
    view = View(settings.recovery.blind_after_s)
    times: list[int] = []
    scores: list[list[float]] = []
    frames = skipped = made = last_ns = 0
    start = perf_counter()
    length = source.length if isinstance(source, ClipSource) else None
    with _bar(source, length) as each:
        for frame in each:
            if length is None:
                frame = msgspec.structs.replace(frame, time_ns=frame.monotonic_ns)
            if first_ns is None:
                first_ns = frame.monotonic_ns
                # By the clip, so that it gives the same ids again, and another clip others.
                random.seed(f"{source.name} {frame.time_ns}")
            last_ns = frame.monotonic_ns
            view.look(frame.pixels, last_ns)
            made += pipeline.step(frame, blind=view.blind)
            frames += 1
            if pipeline.skipped:
                skipped += 1
            elif not view.blind:  # which has no scores that count
                times.append(last_ns - first_ns)
                scores.append(list(pipeline.scores.values()))
    sys.stdout.flush()
    seconds, clip_s = perf_counter() - start, (last_ns - (first_ns or 0)) / 1e9
    warn(
        f"{frames} frames, {clip_s:.1f} s, in {seconds:.1f} s ({clip_s / seconds:.1f} times real time), "
        f"{skipped} still and not classified, {made} events"
    )
    heads = {classifier.name: classifier.heads for classifier in classifiers}
    columns = zip(pipeline.scores, zip(*scores, strict=True), strict=True)
    tracks = [
        Track(model, heads[model][head].task, label, np.array(times, np.int64), np.array(column), clip_s)
        for (model, head, label), column in columns
    ]
    return _Played(frames, tracks, alarms)


def _has_bar() -> bool:
    """Whether progress is shown: stderr is a terminal, and events do not go there too."""
    return sys.stderr is not None and sys.stderr.isatty() and not (sys.stdout and sys.stdout.isatty())


def _bar(source: Source, length: int | None) -> AbstractContextManager[Iterable[Frame]]:
    if _has_bar():
        return click.progressbar(source, length=length, label="replay", file=sys.stderr)
    return nullcontext(source)


def _tuned(track: Track, intervals: Sequence[Interval], target: Target, now: Settings) -> Judged:
    from bittern.evaluation import tuning

    if not _has_bar():
        return tuning.tune(track, intervals, target, now)
    length = len(tuning.levels(track))
    with click.progressbar(length=length, label=f"tune {track.label}", file=sys.stderr) as bar:
        return tuning.tune(track, intervals, target, now, lambda: bar.update(1))


def _toml(clip: str, told: Sequence[Figures], target: Target, settings: WatchConfig, labels: int) -> list[str]:
    """What was found as a part of the configuration file; its figures are comments."""
    import json

    from bittern.evaluation import tuning

    said = [
        f"# Found on {json.dumps(clip)}, for {target.text}, and fitted to it:",
        "# expect less of it on any other clip, and check it on one that was not used here.",
    ]
    for figures in told:
        said += [f"# {line}" for line in tuning.lines(figures, target)]
        if labels == 1:
            said.append("[decision]")
        else:
            said += ["[[alarm]]", f"model = {_quoted(figures.model)}", f"label = {_quoted(figures.label)}"]
        said += [f"{key} = {getattr(figures, key)}" for key in ("threshold", "off", "votes", "of")]
        if labels == 1:
            said += [f"cooldown_s = {settings.decision.cooldown_s}", f"min_off_s = {settings.decision.min_off_s}"]
    return said


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
