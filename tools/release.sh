#!/usr/bin/env bash
# What is checked before a release and by no test, one line each, from a clean checkout on an idle machine.
# tools/release.sh [STEP...] runs all steps or those named; each says whether it passed.
cd "$(dirname "$0")/.."
python=.venv/bin/python

known_weaknesses() { # the image's packages in the database of known weaknesses; needs the network
    grep -v '^torch==' requirements-image.lock | grep -E '^[a-z0-9_.-]+==' | sed 's/ *\\$//' > /tmp/chalkline-audit.txt
    .venv/bin/uv tool run pip-audit==2.10.1 --strict --no-deps --disable-pip -r /tmp/chalkline-audit.txt
}
whole_suite() { make test-all; }                       # every test, slow ones included
long_lesson() { make load LOAD="--minutes 60"; }       # a class of a hundred for an hour
another_machine() { # set OTHER to a folder of runs exported as JSON on another kind of processor
    [ -n "${OTHER:-}" ] || { echo "set OTHER to a folder of exported runs from another machine"; return 1; }
    for file in "$OTHER"/*.json; do $python -m sims rerun "$file" --check || return 1; done
}
on_a_gpu() { # twice on one card: bitwise; against the processor: bands overlap over 20 replicates
    for lab in label_noise xor_grokking; do
        run="$python -m sims run $lab --backend torch --device cuda --replicates 20 --no-store --json"
        first=$($run) && second=$($run) || return 1
        [ "$(jq -r .trace_sha256 <<< "$first")" = "$(jq -r .trace_sha256 <<< "$second")" ] || return 1
    done
}
faults_for_a_day() { # eight hours of killed writers, sweeps and workers: no acknowledged run is lost
    end=$(($(date +%s) + 8 * 3600))
    while [ "$(date +%s)" -lt "$end" ]; do
        $python -m pytest tests/faults/test_kills.py -q || return 1
        sleep 300
    done
}
image() { docker build -t chalkline . ; }              # needs a Docker engine

failed=0
for step in "${@:-known_weaknesses whole_suite long_lesson another_machine on_a_gpu faults_for_a_day image}"; do
    for one in $step; do
        echo "== $one"
        if "$one"; then echo "passed: $one"; else echo "FAILED: $one"; failed=1; fi
    done
done
exit $failed
