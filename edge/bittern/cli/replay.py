"""`bittern replay`: runs clips through the daemon's own pipeline at full speed, and tunes thresholds on one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import one_blas_thread, print_json, warn
from bittern.errors import BitternError, ConfigurationError, did_you_mean, printable, redacted

if TYPE_CHECKING:
    from bittern.cli.playing import Clip, Player
    from bittern.config.schema import WatchConfig
    from bittern.decision.decision import Settings
    from bittern.evaluation.tuning import Figures, Judged, LabelledInterval, Target, Track


@click.command(
    short_help="Run recorded clips as `bittern watch` would.",
    epilog="Example: bittern replay clip --labels clip.csv --tune 'at most 1 false alarm an hour'; "
    "bittern replay clips/ --labels clips/intervals/ --plot scores/",
)
@click.argument("clip", type=click.Path())
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file, as for `bittern watch`.")
@click.option("--model", "models", multiple=True, help="Name or folder; may be repeated.  [default: stop_sign]")
@click.option("--every-frame", is_flag=True, help="Look at every frame, instead of `fps` a second.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV start_s,end_s,label: when there was something to detect. For a folder of clips a folder of them.",
)
@click.option("--tune", metavar="BOUND", help="Find thresholds: 'at most N false alarms an hour', or 'a day'.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="PNG of scores over time, thresholds and alarms. For a folder of clips a folder, for a PNG of each.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object for each label; for a folder of clips, also for each clip."
)
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
    has no clock: every picture is looked at, and they count as one a second; folder:PATH?fps=25 gives it one.

    A bare .tflite file of another tool needs --config with a [[model]] table, which states its labels, the ones that
    raise an alarm, and what else the file does not say.

    --labels says from when to when there was something to detect, in seconds since the first frame; without rows,
    nothing happens in the clip. An alarm, from on to off, detects every interval that it meets, 0.5 s either way. One
    that meets none is false; so is one that is on for more than 10 s outside of the intervals, which detects only the
    interval in which it went on.

    CLIP may also be a folder of clips (video files, recordings); then events are not printed, but figures over all of
    them: intervals detected, delays, and false alarms an hour, with 95 % intervals (Wilson, exact Poisson). --labels is
    a folder of files CLIP.LABEL.csv (without the suffix of the clip), or CLIP.csv with several labels; where a label
    has no interval in a clip, there is nothing to detect. If there is an index.csv with columns clip,models, a clip
    judges only the models that are named there. Each model is run by itself.

    --tune tries every score of the clip, and others in between, as threshold, four shares of it as `off`, and
    `evidence` from 0 to 6, on the scores of all frames that are looked at, without the motion gate. Of the settings
    that keep the bound on this clip it takes those that detect the most intervals, then those with the shortest delay,
    to half a second, and prints them as TOML for the configuration. An alarm that goes on before its interval is false
    here.

    Exit code 1 if a picture or a clip could not be read, or if --tune found no settings.
    """
    one_blas_thread()
    if tune is not None and labels is None:
        raise click.UsageError("--tune needs --labels", ctx)
    from bittern.sources.clip import find_clips

    clips = find_clips(Path(clip))
    if clips and labels is None:
        raise click.UsageError(f"{clip} is a folder of clips, which needs --labels with a folder of intervals", ctx)
    if clips and tune is not None:
        raise click.UsageError("--tune takes one clip, not a folder of clips", ctx)
    if not clips and as_json and tune is None:
        raise click.UsageError("--json needs --tune or a folder of clips: events are always JSON lines", ctx)
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot: no folder {plot.parent}")
    if plot is not None and not clips and plot.is_dir():
        raise ConfigurationError(f"--plot: {plot} is a folder: expected the name of a PNG")
    if plot is not None and clips and (plot.suffix == ".png" or plot.is_file()):
        raise ConfigurationError(f"--plot: {plot}: expected a folder, for a PNG of each clip")
    if not clips:
        _check_clip(clip)
        if labels is not None and labels.is_dir():
            raise ConfigurationError(
                f"--labels: {labels} is a folder, but there are no clips in {clip}: expected video files or recordings"
            )
    import logging

    import msgspec

    from bittern.config import schema
    from bittern.system import log

    log.begin(logging.INFO)
    settings = schema.load(config_file) if config_file else schema.WatchConfig()
    if models:
        settings = msgspec.structs.replace(settings, models=models, model=())
    fps = None if every_frame else settings.fps
    if clips:
        from bittern.cli import replay_folder

        assert labels is not None
        failed = replay_folder.replay(clips, labels, settings, fps, plot, as_json=as_json)
    else:
        failed = _replay(clip, settings, fps, labels, tune, plot, as_json=as_json)
    if failed:
        ctx.exit(1)


def _replay(
    clip: str,
    settings: WatchConfig,
    fps: float | None,
    labels: Path | None,
    tune: str | None,
    plot: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Replay one clip.

    Returns:
        Whether something failed.
    """
    import msgspec

    from bittern.cli.playing import Player, open_clip, open_models
    from bittern.config import schema
    from bittern.decision import decision
    from bittern.evaluation import tuning
    from bittern.events import AlarmKey

    target = tuning.parse_target(tune) if tune is not None else None
    intervals = tuning.read_intervals(labels) if labels is not None else None
    if target is not None:
        if not intervals:
            raise ConfigurationError(f"{labels}: no intervals: --tune needs rows such as 12.5,20,stop")
        settings = msgspec.structs.replace(settings, gate=schema.GateConfig(enabled=False))
    classifiers = open_models(settings)
    decisions = decision.settings_of({c.name: c.heads for c in classifiers}, settings.decision, settings.alarm)
    _check_labels(labels, intervals or (), [key.label for key in decisions])
    opened = open_clip(clip, fps)
    with opened.source as source:
        player = Player(opened, [(classifiers, settings)])
        _play(opened, player, print_events=target is None)
    if player.frames == 0:
        raise BitternError(f"{clip}: no frame could be read")
    failed = source.unreadable > 0
    tracks = player.tracks
    if not any(len(track.times_ns) for track in tracks) and (labels is not None or plot is not None):
        raise BitternError(f"{clip}: no frame shows anything: black, white or of one colour throughout")
    panels: list[tuple[Track, Judged]] = []
    tuned: list[Figures] = []
    for track in tracks:
        key = AlarmKey(track.model, track.task, track.label)
        labelled = [interval for interval in intervals or () if interval.label == track.label]
        judged = tuning.judge(track, labelled, decisions[key], player.alarms[key])
        if target is not None and not labelled:
            warn(f"{track.model}, {track.label}: no interval in {labels}: its settings stay unchanged")
        elif target is not None:
            try:
                judged = _tune(track, labelled, target, decisions[key])
                tuned.append(tuning.figures(track, judged))
            except tuning.NothingFits as error:
                warn(str(error))
                failed = True
                judged = error.nearest or judged
        elif labelled or intervals == []:
            for line in tuning.lines(tuning.figures(track, judged)):
                warn(line)
        panels.append((track, judged))
    if target is not None and as_json:
        for figures in tuned:
            print_json(figures)
    elif target is not None and tuned:
        click.echo("\n".join(map(printable, _toml(clip, tuned, target, settings, len(decisions)))))
    if plot is not None:
        from bittern.evaluation import timeline

        timeline.write(plot, panels, intervals)
    return failed


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

    if not is_clip(Path(clip)) and check_source(clip).live:
        raise ConfigurationError(f"{redacted(clip)!r} is a camera, not a clip: record it first with `bittern record`")


def _play(clip: Clip, player: Player, *, print_events: bool) -> None:
    """Take the frames of a clip; print its events, and on stderr what it was."""
    from bittern import events

    with _bar(clip) as show:
        for step in player.steps():
            if print_events:
                for event in step.events:
                    sys.stdout.buffer.write(events.to_line(event))
            show(player.passed)
    sys.stdout.flush()
    warn(
        f"looked at {player.frames} of {player.frames + player.left_out} frames, {player.clip_s:.1f} s, in "
        f"{player.took_s:.1f} s ({player.clip_s / player.took_s:.1f} times real time), "
        f"{player.skipped} still and not classified, {player.events} events"
    )


def _has_bar() -> bool:
    """Whether progress is shown: stderr is a terminal, and events do not go there too."""
    return sys.stderr is not None and sys.stderr.isatty() and not (sys.stdout and sys.stdout.isatty())


@contextmanager
def _bar(clip: Clip) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where there is one; yields `show(done)`, the number of frames that are behind."""
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
