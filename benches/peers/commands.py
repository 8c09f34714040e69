#!/usr/bin/env python3
"""The workload `commands-b1` on ONNX Runtime: the shipped model `commands` as `firebrick models convert` writes it, a
spectrogram in, the scores of the words out.

Use: python3 commands.py FOLDER     (shared/peers, whose measuring it uses; BENCH_ROOT as there)
"""
import json
import sys

sys.path.insert(0, sys.argv[1])
import bench  # noqa: E402,F401  sets the number of threads
import numpy as np  # noqa: E402
from common import CKPT, measure, report_latency  # noqa: E402
from infer import ORT, ort_session  # noqa: E402

heard = json.loads((CKPT / "commands" / "preprocessor_config.json").read_text())
mel = heard["mel"]
frames = int(heard["seconds"] * mel["sample_rate"]) // mel["hop_length"] + 1
shape = (1, 1, mel["n_mels"], frames)
session = ort_session(CKPT / "commands.onnx")
inputs = {session.get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
report_latency("ort-f32", "commands-b1", measure(lambda: session.run(None, inputs), warmup=2), ORT)
