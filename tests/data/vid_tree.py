"""Small ILSVRC2015 trees: JPEG and XML as distributed, and the same as a COCO-style json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
TURTLE, CAR, ZEBRA = "n01662784", "n02958343", "n02391049"
NAMES = {TURTLE: "turtle", CAR: "car", ZEBRA: "zebra"}
LABELS = {TURTLE: 26, CAR: 6, ZEBRA: 29}  # the places of these classes in the usual order of the 30

Object = tuple[str, int, int, int, int]  # synset, xmin, ymin, xmax, ymax

# By video and frame number. The second has two gaps, an empty frame, and a box that fills the frame.
VIDEOS: dict[str, dict[int, list[Object]]] = {
    "ILSVRC2015_val_00000000": {
        0: [(TURTLE, 1, 2, 30, 40)],
        1: [(TURTLE, 2, 2, 31, 40), (CAR, 0, 0, 10, 10)],
        2: [(CAR, 1, 0, 11, 10), (TURTLE, 3, 2, 32, 40)],
    },
    "ILSVRC2015_val_00007010": {
        4: [(ZEBRA, 0, 0, WIDTH, HEIGHT)],
        5: [],
        9: [(ZEBRA, 5, 6, 50, 40)],
        11: [(ZEBRA, 6, 7, 51, 41)],
        12: [(ZEBRA, 7, 8, 52, 42)],
    },
}


def write_tree(
    root: Path,
    videos: dict[str, dict[int, list[Object]]] = VIDEOS,
    split: str = "VID/val",
    ending: str = "JPEG",
) -> Path:
    """The frames and XML files of the videos, below Data/<split> and Annotations/<split>; returns the root."""
    for video, frames in videos.items():
        for number, objects in frames.items():
            write_frame(root / "Data" / split / video / f"{number:06}.{ending}", number)
            write_xml(root / "Annotations" / split / video / f"{number:06}.xml", objects)
    return root


def write_frame(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(path)


def write_xml(path: Path, objects: list[Object]) -> None:
    """Edges in the order of the distributed files: xmax, xmin, ymax, ymin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = "".join(
        f"\t<object>\n\t\t<trackid>{track}</trackid>\n\t\t<name>{synset}</name>\n\t\t<bndbox>\n"
        f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymax>{y1}</ymax>\n\t\t\t<ymin>{y0}</ymin>\n"
        "\t\t</bndbox>\n\t\t<occluded>0</occluded>\n\t\t<generated>0</generated>\n\t</object>\n"
        for track, (synset, x0, y0, x1, y1) in enumerate(objects)
    )
    path.write_text(
        f"<annotation>\n\t<folder>{path.parent.name}</folder>\n\t<filename>{path.stem}</filename>\n"
        "\t<source>\n\t\t<database>ILSVRC_2015</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{WIDTH}</width>\n\t\t<height>{HEIGHT}</height>\n\t</size>\n{entries}</annotation>\n"
    )


def coco_json(
    videos: dict[str, dict[int, list[Object]]] = VIDEOS, prefix: str = "val/", ending: str = "JPEG"
) -> dict[str, list[dict[str, object]]]:
    """The same objects, with category ids of its own and images in no good order."""
    ids = {synset: 10 + i for i, synset in enumerate(NAMES)}
    content: dict[str, list[dict[str, object]]] = {
        "categories": [{"id": ids[synset], "name": name} for synset, name in NAMES.items()],
        "videos": [{"id": i, "name": prefix + video} for i, video in enumerate(videos)],
        "images": [],
        "annotations": [],
    }
    for i, (video, frames) in enumerate(videos.items()):
        for number, objects in sorted(frames.items(), reverse=True):
            image = 100 + len(content["images"])
            content["images"].append(
                {
                    "id": image,
                    "file_name": f"{prefix}{video}/{number:06}.{ending}",
                    "width": WIDTH,
                    "height": HEIGHT,
                    "video_id": i,
                    "frame_id": number,
                }
            )
            for synset, x0, y0, x1, y1 in objects:
                box = [x0, y0, x1 - x0, y1 - y0]
                content["annotations"].append({"image_id": image, "category_id": ids[synset], "bbox": box})
    return content


def write_json(path: Path, content: dict[str, list[dict[str, object]]]) -> Path:
    path.write_text(json.dumps(content))
    return path
