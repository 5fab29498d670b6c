"""Check an ImageNet VID root before a long run, and write its annotations as one json.

python scripts/prepare_vid.py data/ILSVRC2015
python scripts/prepare_vid.py data/ILSVRC2015 --split train --decode
python scripts/prepare_vid.py data/ILSVRC2015 --split det --write-json data/ILSVRC2015/det_train.json
python scripts/prepare_vid.py data/ILSVRC2015 --json vid_val.json

Counts videos, frames, sequences (a gap in the frame numbers begins a new one) and boxes, and lists everything that
is missing or broken by name. The exit status is 1 if anything is. Nothing is changed below the root.
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from evt.data.images import read_image
from evt.data.vid import (
    SPLITS,
    VID,
    VIDVideo,
    XmlTargets,
    annotated_pictures,
    check_layout,
    check_size,
    has_object_of_a_class,
    picture_files,
    video_folders,
)
from evt.data.vid_annotations import (
    LABEL_OF_SYNSET,
    Annotation,
    by_number,
    classes_of_tree,
    frame_number,
    labels_of_tree,
)
from evt.data.vid_coco import CocoTargets, CocoWriter
from evt.errors import DataError
from evt.files import check_writable, sentence


@dataclass
class Report:
    """What was counted, and what is wrong, a sentence each."""

    videos: int = 0
    frames: int = 0
    sequences: int = 0
    boxes: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, video: VIDVideo) -> None:
        """Count a video and its frames; boxes are counted where they are read."""
        self.videos += 1
        self.frames += len(video)
        self.sequences += video.n_sequences


def check_videos(root: Path, split: str, decode: bool, writer: CocoWriter) -> Report:
    """Check val or train against its XML files, and hand every good frame to the writer."""
    report = Report()
    data, annotations = (root / tree / SPLITS[split] for tree in ("Data", "Annotations"))
    try:
        check_layout(root, split, trees=())
    except DataError as error:
        report.problems.append(str(error))
        return report
    report.problems += [f"{tree}: no such folder" for tree in (data, annotations) if not tree.is_dir()]
    names = {tree: video_folders(tree, split) for tree in (data, annotations) if tree.is_dir()}
    if not names.get(data):
        report.problems.append(f"{data} has no videos")
        return report
    for name in tqdm(sorted(set().union(*names.values())), unit="video", disable=None):
        try:
            files = by_number(picture_files(data / name))
        except DataError as error:
            report.problems.append(str(error))
            continue
        targets = XmlTargets(
            str(annotations / name), files, required=True, other_synsets=False, labels=labels_of_tree(root)
        )
        video = VIDVideo(name, files, targets)
        if files:
            report.count(video)
        else:
            report.problems.append(f"{data / name}: no frames of this video")
        annotated = name in names.get(annotations, [])
        if not annotated and annotations in names:
            report.problems.append(f"{annotations / name}: no XML files of this video")
        for i, file in enumerate(files):
            annotation = _check_frame(report, file, targets if annotated else None, i, decode)
            if annotation is not None:
                file_name = os.path.relpath(file, data.parent)
                writer.add(file_name, annotation, f"{data.name}/{name}", frame_number(file))
        if annotated and files:
            expected = {os.path.basename(targets.path(i)) for i in range(len(files))}
            found = {xml for xml in os.listdir(annotations / name) if xml.endswith(".xml")}
            report.problems += [
                f"{annotations / name / xml}: there is no frame for it in {data / name}"
                for xml in sorted(found - expected)
            ]
    return report


def check_pictures(root: Path, decode: bool, writer: CocoWriter) -> Report:
    """Check DET's pictures of the 30 classes, and hand every good one to the writer."""
    report = Report()
    try:
        check_layout(root, "det", ("Data", "Annotations"))
    except DataError as error:
        report.problems.append(str(error))
        return report
    data, annotations = (root / tree / SPLITS["det"] for tree in ("Data", "Annotations"))
    try:
        for name, file, xml in tqdm(annotated_pictures(root), unit="picture", disable=None):
            if not has_object_of_a_class(xml):
                continue
            report.videos, report.frames, report.sequences = (report.videos + 1,) * 3
            targets = XmlTargets(str((annotations / name).parent), [file], True, True, LABEL_OF_SYNSET)
            annotation = _check_frame(report, file, targets, 0, decode)
            if annotation is not None:
                writer.add(os.path.relpath(file, data.parent), annotation, None, 0)
    except DataError as error:
        report.problems.append(str(error))
    return report


def check_json(root: Path, split: str, path: Path, decode: bool) -> Report:
    """Check a COCO-style json and the frames that it lists."""
    report = Report()
    try:
        videos = VID(root, split, annotations=path)
    except DataError as error:
        report.problems.append(str(error))
        return report
    for video in tqdm(videos, unit="video", disable=None):
        report.count(video)
        for i, file in enumerate(video.files):
            _check_frame(report, file, video.targets, i, decode)
    return report


def _check_frame(
    report: Report, file: str, targets: XmlTargets | CocoTargets | None, i: int, decode: bool
) -> Annotation | None:
    """Check a picture and, where targets are given, its annotation i, which is returned if both are good."""
    problems, image, annotation = [], None, None
    try:
        if decode:
            image = read_image(file)
        elif not os.path.exists(file):
            problems.append(f"{file}: no such picture")
    except DataError as error:
        problems.append(str(error))
    try:
        if targets is not None and (annotation := targets[i]) is not None:
            report.boxes += len(annotation.target.labels)
            if image is not None:
                check_size(file, image, annotation)
    except DataError as error:
        problems.append(str(error))
    report.problems += problems
    return None if problems else annotation


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line names; returns the exit status."""
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder ILSVRC2015")
    parser.add_argument("--split", choices=list(SPLITS), default="val")
    parser.add_argument("--decode", action="store_true", help="decode every picture, to find truncated ones")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--json", type=Path, metavar="FILE", help="check this COCO-style json, not the XML files"
    )
    source.add_argument(
        "--write-json", type=Path, metavar="OUT", help="write a COCO-style json of what is good"
    )
    choice = parser.parse_args(arguments)

    try:
        if choice.write_json:
            check_writable(choice.write_json)
        writer = CocoWriter(classes_of_tree(choice.root))
    except (DataError, OSError) as error:
        print(sentence(error))
        return 1
    if choice.json:
        report = check_json(choice.root, choice.split, choice.json, choice.decode)
    elif choice.split == "det":
        report = check_pictures(choice.root, choice.decode, writer)
    else:
        report = check_videos(choice.root, choice.split, choice.decode, writer)
    print(
        f"{choice.root}, split {choice.split}: {report.videos} videos, {report.frames} frames, "
        f"{report.sequences} sequences, {report.boxes} boxes"
    )
    for problem in report.problems:
        print(problem)
    print(f"{len(report.problems)} things are missing or broken" if report.problems else "all is well")
    if choice.write_json and report.frames:
        try:
            writer.write(choice.write_json)
        except DataError as error:
            print(error)
            return 1
        print(f"written to {choice.write_json}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
