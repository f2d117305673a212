"""`bittern replay`: runs a clip through the daemon's own pipeline at full speed, and tunes thresholds on it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from bittern.cli.common import one_blas_thread, print_json, warn
from bittern.errors import BitternError, ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.decision.decision import Settings
    from bittern.evaluation.tuning import Figures, Judged, LabelledInterval, Target, Track
    from bittern.events import AlarmKey
    from bittern.frames import Source
    from bittern.model.classifier import Classifier


@click.command(
    short_help="Run a recorded clip as `bittern watch` would.",
    epilog="Example: bittern replay clip --labels clip.csv --tune 'at most 1 false alarm an hour'",
)
@click.argument("clip", type=click.Path())
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file, as for `bittern watch`.")
@click.option("--model", "models", multiple=True, help="Name or folder; may be repeated.  [default: stop_sign]")
@click.option("--every-frame", is_flag=True, help="Look at every frame, instead of `fps` a second.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="CSV start_s,end_s,label: when there was something to detect."
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
    every_frame: bool,
    labels: Path | None,
    tune: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run a recorded clip through the same steps as `bittern watch`, as fast as possible, and print the events.

    CLIP is the folder of a `bittern record`, a video file, or a folder of pictures. Time is the clip's own: a recording
    gives the same events as when it was taken, with ids of their own; for other clips, whose date is not known, `time`
    counts from 1970. The same clip always gives the same lines.

    As many frames are looked at as the daemon would, at most `fps` a second (5 without --config) by the clip's own
    clock; --every-frame looks at all. A recording that was taken at this rate is looked at whole. A folder of pictures
    has no clock: every picture is looked at, and they count as one a second; folder:PATH?fps=25 gives them one.

    --labels says from when to when there was something to detect, in seconds since the first frame. An interval is
    detected if an alarm goes on within it; an alarm that goes on elsewhere is false.

    --tune tries every score of the clip, and others in between, as threshold, four shares of it as `off`, and
    `evidence` from 0 to 6, on the scores of all frames that are looked at, without the motion gate. Of the settings
    that keep the bound on this clip it takes those that detect the most intervals, then those with the shortest delay,
    and prints them as TOML for the configuration.

    Exit code 1 if a picture could not be read, or if --tune found no settings.
    """
    one_blas_thread()
    if tune is not None and labels is None:
        raise click.UsageError("--tune needs --labels", ctx)
    if as_json and tune is None:
        raise click.UsageError("--json needs --tune: events are always printed as JSON lines", ctx)
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot: no folder {plot.parent}")
    _check_clip(clip)
    import msgspec

    from bittern.config import schema
    from bittern.decision import decision
    from bittern.evaluation import tuning
    from bittern.events import AlarmKey

    target = tuning.parse_target(tune) if tune is not None else None
    intervals = tuning.read_intervals(labels) if labels is not None else []
    settings = schema.load(config_file) if config_file else schema.WatchConfig()
    if models:
        settings = msgspec.structs.replace(settings, models=models)
    if target is not None:
        settings = msgspec.structs.replace(settings, gate=schema.GateConfig(enabled=False))
    classifiers = _open_models(settings)
    decisions = decision.settings_of({c.name: c.heads for c in classifiers}, settings.decision, settings.alarm)
    _check_labels(labels, intervals, [key.label for key in decisions])
    opened = _open(clip)
    if not every_frame:
        opened.source.thin(settings.fps)
    with opened.source as source:
        played = _play(opened, classifiers, settings, print_events=target is None)
    if played.frames == 0:
        raise BitternError(f"{clip}: no frame could be read")
    failed = source.unreadable > 0
    if not played.tracks and (intervals or target is not None or plot is not None):
        raise BitternError(f"{clip}: no frame shows anything: black, white or of one colour throughout")
    panels: list[tuple[Track, Judged]] = []
    tuned: list[Figures] = []
    for track in played.tracks:
        key = AlarmKey(track.model, track.task, track.label)
        current = decisions[key]
        labelled = [interval for interval in intervals if interval.label == track.label]
        judged = tuning.judge(track, labelled, current, played.alarms[key])
        if target is not None and not labelled:
            warn(f"{track.model}, {track.label}: no interval in {labels}: its settings stay unchanged")
        elif target is not None:
            try:
                judged = _tune(track, labelled, target, current)
                tuned.append(tuning.figures(track, judged))
            except tuning.NothingFits as error:
                warn(str(error))
                failed = True
                judged = error.nearest or judged
        elif labelled:
            for line in tuning.lines(tuning.figures(track, judged)):
                warn(line)
        panels.append((track, judged))
    if target is not None and as_json:
        for figures in tuned:
            print_json(figures)
    elif target is not None and tuned:
        click.echo("\n".join(_toml(clip, tuned, target, settings, len(decisions))))
    if plot is not None:
        from bittern.evaluation import timeline

        timeline.write(plot, panels, intervals)
    if failed:
        ctx.exit(1)


class _Clip(NamedTuple):
    """What is replayed.

    Attributes:
        source: of its frames.
        length: number of frames; None if it is not known before the end.
        dated: whether its frames have the wall-clock time at which they were taken.
    """

    source: Source
    length: int | None
    dated: bool


class _Played(NamedTuple):
    """What came of a clip.

    Attributes:
        frames: how many there were.
        tracks: the scores of each alarm; none if no frame decided anything.
        alarms: the periods in which each alarm was on, in s since the first frame.
    """

    frames: int
    tracks: list[Track]
    alarms: dict[AlarmKey, list[tuple[float, float]]]


def _open_models(settings: WatchConfig) -> list[Classifier]:
    from bittern.model.classifier import Classifier

    classifiers = [Classifier(m, threads=settings.threads) for m in settings.models]
    for classifier in classifiers:
        if classifier.manifest is None:
            warn(f"{classifier.name}: no manifest: not verified")
    return classifiers


def _check_labels(file: Path | None, intervals: Sequence[LabelledInterval], known: Sequence[str]) -> None:
    for interval in intervals:
        if interval.label not in known:
            names, hint = ", ".join(dict.fromkeys(map(repr, known))), did_you_mean(interval.label, known)
            raise ConfigurationError(
                f"{file}: label {interval.label!r} does not raise an alarm; these do: {names}{hint}"
            )


def _check_clip(clip: str) -> None:
    """Refuse a camera, without opening it."""
    from bittern.sources.clip import is_clip
    from bittern.sources.registry import check_source
    from bittern.sources.uri import redacted

    if not is_clip(Path(clip)) and check_source(clip).live:
        raise ConfigurationError(f"{redacted(clip)!r} is a camera, not a clip: record it first with `bittern record`")


def _open(clip: str) -> _Clip:
    """Open a clip.

    Raises:
        ConfigurationError: there is none.
    """
    import logging

    from bittern.sources.clip import ClipSource, is_clip
    from bittern.sources.registry import open_source

    logging.basicConfig(format="bittern: %(message)s", level=logging.INFO)
    if is_clip(Path(clip)):
        recorded = ClipSource(Path(clip))
        return _Clip(recorded, recorded.length, dated=True)
    return _Clip(open_source(clip), None, dated=False)


def _play(clip: _Clip, classifiers: Sequence[Classifier], settings: WatchConfig, *, print_events: bool) -> _Played:
    """Take the frames of a clip, in its own time."""
    from random import Random
    from time import perf_counter

    import msgspec
    import numpy as np

    from bittern import events
    from bittern.camera.scene_watch import SceneWatch
    from bittern.decision.pipeline import Pipeline
    from bittern.evaluation.tuning import Track

    random = Random()
    pipeline = Pipeline(classifiers, settings, new_id=lambda time_ns: events.uuid7(time_ns, random))
    scene = SceneWatch(settings.recovery.blind_after_s)
    alarms: dict[AlarmKey, list[tuple[float, float]]] = {key: [] for key in pipeline.alarms}
    first_ns: int | None = None
    times: list[int] = []
    scores: list[list[float]] = []
    frames = skipped = raised = last_ns = 0
    start = perf_counter()
    with _bar(clip) as show:
        for frame in clip.source:
            show(frames + clip.source.left_out + clip.source.unreadable)
            if not clip.dated:
                frame = msgspec.structs.replace(frame, time_ns=frame.monotonic_ns)
            if first_ns is None:
                first_ns = frame.monotonic_ns
                # Seeded by the clip, so that it gives the same ids every time, and another clip others.
                random.seed(f"{clip.source.name} {frame.time_ns}")
            last_ns = frame.monotonic_ns
            scene.look(frame.pixels, last_ns)
            step = pipeline.step(frame, blind=scene.blind)
            frames += 1
            skipped += step.skipped
            raised += len(step.events)
            for event in step.events:
                if print_events:
                    sys.stdout.buffer.write(events.to_line(event))
                assert event.alarm is not None, "a pipeline raises alarms only"
                _note(alarms[event.alarm], event.type == "alarm.on", (last_ns - first_ns) / 1e9)
            if step.scores:
                times.append(last_ns - first_ns)
                scores.append([step.scores[key] for key in alarms])
    sys.stdout.flush()
    seconds, clip_s = perf_counter() - start, (last_ns - (first_ns or 0)) / 1e9
    warn(
        f"looked at {frames} of {frames + clip.source.left_out} frames, {clip_s:.1f} s, in {seconds:.1f} s "
        f"({clip_s / seconds:.1f} times real time), {skipped} still and not classified, {raised} events"
    )
    columns = list(zip(*scores, strict=True))
    tracks = [
        Track(key.model, key.task, key.label, np.array(times, np.int64), np.array(columns[i]), clip_s)
        for i, key in enumerate(alarms if scores else ())
    ]
    return _Played(frames, tracks, alarms)


def _note(periods: list[tuple[float, float]], on: bool, at_s: float) -> None:
    """Begin or end a period in which an alarm is on; one that has not ended lasts for ever."""
    if on:
        periods.append((at_s, math.inf))
    else:
        periods[-1] = periods[-1][0], at_s


def _has_bar() -> bool:
    """Whether progress is shown: stderr is a terminal, and events do not go there too."""
    return sys.stderr is not None and sys.stderr.isatty() and not (sys.stdout and sys.stdout.isatty())


@contextmanager
def _bar(clip: _Clip) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where there is one; yields `show(done)`, the number of frames that were passed."""
    if not _has_bar():
        yield lambda done: None
        return
    with click.progressbar(range(clip.length or 0), clip.length, "replay", file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)


def _tune(track: Track, intervals: Sequence[LabelledInterval], target: Target, current: Settings) -> Judged:
    from bittern.evaluation import tuning

    if not _has_bar():
        return tuning.tune(track, intervals, target, current)
    length = len(tuning.levels(track))
    with click.progressbar(length=length, label=f"tune {track.label}", file=sys.stderr) as bar:
        return tuning.tune(track, intervals, target, current, lambda: bar.update(1))


def _toml(clip: str, tuned: Sequence[Figures], target: Target, settings: WatchConfig, alarms: int) -> list[str]:
    """Tuned settings as a part of the configuration file, with their figures as comments."""
    import json

    from bittern.evaluation import tuning

    lines = [
        f"# Found on {json.dumps(clip)}, for {target.text}, and fitted to it:",
        "# expect less of it on any other clip, and check it on one that was not used here.",
    ]
    for figures in tuned:
        lines += [f"# {line}" for line in tuning.lines(figures, target)]
        if alarms == 1:
            lines.append("[decision]")
        else:
            lines += ["[[alarm]]", f"model = {_quoted(figures.model)}", f"label = {_quoted(figures.label)}"]
        lines += [f"{key} = {getattr(figures, key)}" for key in ("threshold", "off", "evidence")]
        if alarms == 1:
            lines += [f"cooldown_s = {settings.decision.cooldown_s}", f"min_off_s = {settings.decision.min_off_s}"]
    return lines


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
