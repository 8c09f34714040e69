#!/usr/bin/env python3
"""Files of the real torch for `checkpoint/torch.rs`, and what is in them as safetensors.

    python3 make.py

Written with torch 2.15.0. Re-make them, never edit them.
"""
import collections

import torch
from safetensors.torch import save_file

torch.manual_seed(1)
base = torch.randn(4, 6)
tied = torch.randn(3, 2)
tensors = collections.OrderedDict(
    f32=torch.randn(2, 3),
    f16=torch.randn(5).half(),
    bf16=torch.randn(2, 2).bfloat16(),
    f64=torch.randn(3).double(),
    i64=torch.arange(-2, 3),
    mask=torch.tensor([True, False]),
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 4),
    parameter=torch.nn.Parameter(torch.randn(2)),
    turned=torch.randn(3, 4).t(),
    part=base[1:3, ::2],
    row=base[2],
    tied=tied,
    also_tied=tied,
    positions=torch.arange(6).expand(1, -1),
)
torch.save(tensors, "tensors.bin")
torch.save(dict(tensors), "protocol_4.bin", pickle_protocol=4)
torch.save(torch.nn.Linear(2, 1).state_dict(), "before_1_6.bin", _use_new_zipfile_serialization=False)
torch.save({"weight": tied, "step": 3}, "with_a_number.bin")
torch.save({"weight": tied, "dtype": torch.float32}, "with_a_dtype.bin")
torch.save(torch.nn.Linear(2, 1), "whole_module.bin")
torch.save({"weight": torch.zeros(1).expand(1000)}, "repeated.bin")
save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, "tensors.safetensors")
