"""Train a classifier of handwritten digits, and write it as an ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy.typing as npt
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Array = npt.NDArray[Any]

PIXELS = 64
# the newest that skl2onnx writes may be too new for the onnxruntime of the service
TARGET_OPSET = 18


class Images(NamedTuple):
    """Handwritten digits: a row of pixels for each, and which digit it is."""

    pixels: Array
    digits: Array


def load_images() -> tuple[Images, Images]:
    """Give 1437 images to learn from, in random order, and 360 others to ask about."""
    pixels, digits = load_digits(return_X_y=True)
    learn_pixels, ask_pixels, learn_digits, ask_digits = train_test_split(
        pixels, digits, test_size=360, random_state=0, stratify=digits
    )
    return Images(learn_pixels, learn_digits), Images(ask_pixels, ask_digits)


def train(rows: int | None = None) -> Pipeline:
    """Learn from the first `rows` images, or from all."""
    learn, _ = load_images()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return classifier.fit(learn.pixels[:rows], learn.digits[:rows])


def to_onnx(classifier: Pipeline) -> bytes:
    """Give a model with the input `pixels` and the outputs `label` and `probabilities`."""
    model = convert_sklearn(
        classifier,
        # without a name it gets a random one, and another checksum with each conversion
        name="digits",
        initial_types=[("pixels", FloatTensorType([None, PIXELS]))],
        target_opset=TARGET_OPSET,
        # without it the probabilities are maps, which cannot be served
        options={"zipmap": False},
    )
    content: bytes = model.SerializeToString()
    return content


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(min=10), help="How many to learn from; else all.")
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(rows: int | None, to: Path) -> None:
    classifier = train(rows)
    to.write_bytes(to_onnx(classifier))
    _, ask = load_images()
    click.echo(f"{to}: accuracy {classifier.score(*ask):.3f}")


if __name__ == "__main__":
    main()
