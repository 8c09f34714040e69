#!/usr/bin/env python3
"""Writes kenlm-*.arpa and kenlm.json beside this file: what KenLM 0.3.0 makes of ngram.txt.

    python make_kenlm.py PATH/TO/lmplz

`pip install kenlm==0.3.0` brings the reader; `lmplz` is built from the same package's sources with cmake and boost.
"""

import json
import subprocess
import sys
from pathlib import Path

import kenlm

HERE = Path(__file__).parent
CASES = {"3": ["-o", "3"], "4-pruned": ["-o", "4", "--prune", "0", "0", "1"]}
# Seen, seen in part, unknown, empty.
SENTENCES = [
    "we are accounted poor citizens , the patricians good .",
    "the patricians are poor citizens",
    "the zebra speaks to the people of rome",
    "zebra",
    "",
]

golden = {}
for name, options in CASES.items():
    arpa = HERE / f"kenlm-{name}.arpa"
    command = [sys.argv[1], *options, "--discount_fallback", "--text", HERE / "ngram.txt", "--arpa", arpa]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    model = kenlm.Model(str(arpa))
    golden[name] = [[text, round(model.score(text), 5)] for text in SENTENCES]
(HERE / "kenlm.json").write_text(json.dumps(golden, indent=1) + "\n")
