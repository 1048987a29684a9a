"""A lab's pictures as a page looks at them: compared, and on axes that stand still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .axes import with_ranges
from .difference import DIFFERENCE_ID, difference
from .options import DIFFERENCE, Options
from .pictures import Picture
from .runs import View


def looked_at(pictures: Sequence[Picture], view: View, options: Options) -> list[Picture]:
    """The pictures with what the options ask for."""
    shown: list[Picture] = []
    for picture in pictures:
        shown.append(picture)
        if DIFFERENCE in options.shown and (compared := difference(view, picture)) is not None:
            shown.append(compared)
    return [_held(picture, options) for picture in shown]


def unmet(pictures: Sequence[Picture], options: Options) -> list[str]:
    """A sentence for each option that the pictures cannot meet.

    That is an axis which is to stand still and is not there, or has no room for it, and a difference of no curves.
    """
    by_id = {picture.id: picture for picture in pictures}
    sentences = []
    if DIFFERENCE in options.shown and not any(name.endswith(DIFFERENCE_ID) for name in by_id):
        sentences.append("No picture here has curves of two runs whose difference could be drawn.")
    for name, ranges in options.ranges.items():
        if name not in by_id:
            sentences.append(f"The axes of {name} are kept, a picture that is not on this page now.")
        elif refused := with_ranges(by_id[name].spec, ranges)[1]:
            sentences.append(f"{by_id[name].title}: the kept range of {' and '.join(refused)} does not fit its axis.")
    return sentences


def _held(picture: Picture, options: Options) -> Picture:
    ranges = options.ranges.get(picture.id)
    return replace(picture, spec=with_ranges(picture.spec, ranges)[0]) if ranges else picture
