"""`python -m tests.golden [LAB...]`: see the package."""

import sys

from sims.engine import get_lab, lab_ids

from . import VersionNotRaised, path_of, regenerate

for lab_id in sys.argv[1:] or lab_ids():
    lab = get_lab(lab_id)
    try:
        print(f"{path_of(lab)}: {'written' if regenerate(lab) else 'nothing to write'}")
    except VersionNotRaised as refusal:
        sys.exit(str(refusal))
