"""`bittern replay` of a folder of clips: every clip through the pipeline of each model, and the figures over all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bittern.cli.common import print_json, progress_bar, warn
from bittern.cli.playing import Player, open_clip, open_models
from bittern.config.schema import WatchConfig
from bittern.decision import decision
from bittern.errors import BitternError, ConfigurationError, printable
from bittern.evaluation import clips as figures
from bittern.evaluation import timeline, tuning
from bittern.events import AlarmKey

if TYPE_CHECKING:
    from bittern.evaluation.clips import ClipFigures
    from bittern.model.classifier import Classifier


def replay(
    clips: Sequence[Path],
    labels: Path,
    settings: WatchConfig,
    fps: float | None,
    plot: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Replay the clips of a folder, and print the figures.

    Args:
        clips: at least one.
        labels: the folder of their intervals.
        settings: as for `bittern watch`.
        fps: how many frames of each second are looked at; None looks at all.
        plot: a folder that gets a PNG of each clip; is made.
        as_json: print JSON instead of text.

    Returns:
        Whether a clip, or a picture in it, could not be read.

    Raises:
        ConfigurationError: intervals, index and models do not fit together.
        BitternError: no clip could be read.
    """
    intervals = figures.read_labels(labels, clips)
    index = figures.read_index(clips[0].parent, [clip.name for clip in clips])
    classifiers = open_models(settings)
    decisions = decision.settings_of({c.name: c.heads for c in classifiers}, settings.decision, settings.alarm)
    for label in figures.unknown_labels(intervals, [key.label for key in decisions]):
        warn(f"{labels}: intervals of {label!r} are not used: it does not raise an alarm of these models")
    used = {clip.name: [c for c in classifiers if _judges(index, clip.name, c)] for clip in clips}
    for classifier in classifiers:
        if not any(classifier in chosen for chosen in used.values()):
            raise ConfigurationError(f"{clips[0].parent / figures.INDEX}: no clip judges the model {classifier.name!r}")
    failed = False
    if index is not None:
        for name in index.unlisted:
            warn(f"{clips[0].parent / name}: not in {figures.INDEX}, so not used")
        for name in index.absent:
            warn(f"{clips[0].parent / name}: named in {figures.INDEX}, but there is no such clip")
            failed = True
    if plot is not None:
        plot.mkdir(exist_ok=True)
    results: dict[AlarmKey, list[ClipFigures]] = {key: [] for key in decisions}
    looked_at = left_out = 0
    with progress_bar("replay", len(clips)) as show:
        for done, clip in enumerate(clips, 1):
            groups = [([classifier], _alone(settings, classifier)) for classifier in used[clip.name]]
            if groups:
                try:
                    player, unreadable = _play(clip, groups, fps)
                except BitternError as error:
                    warn(str(error))
                    failed = True
                else:
                    failed |= unreadable
                    looked_at, left_out = looked_at + player.frames, left_out + player.left_out
                    panels = []
                    for track in player.tracks:
                        key = AlarmKey(track.model, track.task, track.label)
                        if index is None or index.judges(clip.name, track.model, track.task):
                            labelled = [i for i in intervals[clip.name] if i.label == track.label]
                            judged = tuning.judge(track, labelled, decisions[key], player.alarms[key])
                            results[key].append(figures.clip_figures(clip.name, track, judged))
                            panels.append((track, judged))
                    if plot is not None:
                        file = plot / f"{figures.stem_of(clip)}.png"
                        timeline.write(file, panels, intervals[clip.name], clip.name)
            show(done)
    warn(f"looked at {looked_at} of {looked_at + left_out} frames of {len(clips)} clips")
    if not any(results.values()):
        raise BitternError(f"{clips[0].parent}: no clip could be read")
    for key, of_clips in results.items():
        if not of_clips:
            warn(f"{key.model}, {key.label}: no clip could be read")
        elif as_json:
            for figure in (figures.totals(of_clips), *of_clips):
                print_json(figure)
        else:
            click.echo("\n".join(map(printable, figures.lines(figures.totals(of_clips), of_clips))))
    return failed


def _judges(index: figures.Index | None, clip: str, classifier: Classifier) -> bool:
    return index is None or any(index.judges(clip, classifier.name, head.task) for head in classifier.heads)


def _alone(settings: WatchConfig, classifier: Classifier) -> WatchConfig:
    """The configuration of one model: its figures must not depend on which other models are there."""
    labels = {label for head in classifier.heads for label in head.alarm}
    alarm = tuple(a for a in settings.alarm if a.model in (None, classifier.name) and a.label in (None, *labels))
    return msgspec.structs.replace(settings, alarm=alarm, gpio=None)


def _play(
    clip: Path, groups: Sequence[tuple[Sequence[Classifier], WatchConfig]], fps: float | None
) -> tuple[Player, bool]:
    """Take all frames of a clip; the second value says whether some could not be read."""
    opened = open_clip(str(clip), fps)
    player = Player(opened, groups)
    with opened.source as source:
        for _ in player.steps():
            pass
    if player.frames == 0:
        raise BitternError(f"{clip}: no frame could be read")
    return player, source.unreadable > 0
