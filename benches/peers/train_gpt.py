#!/usr/bin/env python3
"""The workload `train-gpt-b12` on PyTorch eager: nanoGPT's model with 6 layers, 384 wide, 12 rows of 64 characters.

Use: python3 train_gpt.py FOLDER     (shared/peers, whose train.py it runs at these sizes; BENCH_ROOT as there)
"""
import sys

sys.path.insert(0, sys.argv[1])
import bench  # noqa: E402,F401  sets the number of threads, so before torch
import train  # noqa: E402


def build(_):
    model, batches, options = train.nanogpt(6, 6, 384, 64, 12)
    return model, model, batches, options, 12 * 64


train.build = build
train.run("torch-eager", "train-gpt-b12")
