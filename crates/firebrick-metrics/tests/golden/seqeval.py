#!/usr/bin/env python3
"""Writes seqeval.txt beside this file: what seqeval 1.2.2 says of random tags, some of them not well-formed."""

import random
from pathlib import Path

from seqeval.metrics import classification_report

random.seed(7)
TAGS = ["O", "O", "O", "B-city", "I-city", "B-time", "I-time", "I-name", "B-name"]
lines, truth, predicted = [], [], []
for round in range(6):
    for _ in range(3):
        true = random.choices(TAGS, k=random.randint(1, 12))
        guess = [tag if random.random() < 0.7 else random.choice(TAGS) for tag in true]
        truth.append(true)
        predicted.append(guess)
        lines += ["T " + " ".join(true), "P " + " ".join(guess)]
    report = classification_report(truth, predicted, output_dict=True, zero_division=0)
    for kind, row in report.items():
        if kind != "weighted avg":
            numbers = [row[key] for key in ("precision", "recall", "f1-score", "support")]
            lines.append(f"= {kind.removesuffix(' avg')} " + " ".join(repr(float(x)) for x in numbers))
Path(__file__).with_name("seqeval.txt").write_text("\n".join(lines) + "\n")
