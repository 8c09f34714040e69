#!/usr/bin/env python3
"""What `torch.nn.RNN`, `GRU` and `LSTM` make of padded sequences, for `firebrick-core/src/layers/rnn.rs`.

    python3 make.py

Written with torch 2.15.0. Re-make the files, never edit them. Each holds the weights by PyTorch's names and under `case.`:
inputs, initial state `[layer and direction, h or c, row, unit]`, padding (1 where it is), outputs, last state, and the
gradients of the sum of outputs and last state times sin(1), sin(2), ... each.

Computed in float64 and written as float32: what differs is the rounding of the code under test.
"""
import torch
from safetensors.torch import save_file
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LENGTHS = torch.tensor([3, 7, 1, 6, 7, 2, 5])
INPUTS, UNITS, LAYERS = 5, 19, 2


def make(name, module, states):
    torch.manual_seed(1)
    rnn = module.double()
    for parameter in rnn.parameters():
        parameter.data = (0.4 * torch.randn_like(parameter)).float().double()
    rows, steps = len(LENGTHS), int(LENGTHS.max())
    pad = torch.arange(steps)[None] >= LENGTHS[:, None]
    x = torch.randn(rows, steps, INPUTS).double().requires_grad_()
    state = torch.randn(2 * LAYERS, states, rows, UNITS).double().requires_grad_()
    before = tuple(state[:, s].contiguous() for s in range(states))
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    y, after = rnn(packed, before if states > 1 else before[0])
    y, _ = pad_packed_sequence(y, batch_first=True)
    last = torch.stack(after if states > 1 else (after,), dim=1)

    def weighted(t):
        return (t.flatten() * torch.arange(1, t.numel() + 1).double().sin()).sum()

    (weighted(y) + weighted(last)).backward()
    tensors = dict(rnn.named_parameters())
    case = {"x": x, "state": state, "pad": pad, "y": y, "last": last, "dx": x.grad, "dstate": state.grad}
    case |= {f"d{n}": p.grad for n, p in rnn.named_parameters()}
    tensors |= {f"case.{n}": t for n, t in case.items()}
    save_file({n: t.detach().float().contiguous() for n, t in tensors.items()}, f"{name}.safetensors")


options = {"num_layers": LAYERS, "bidirectional": True, "batch_first": True}
make("rnn_tanh", torch.nn.RNN(INPUTS, UNITS, nonlinearity="tanh", **options), 1)
make("rnn_relu", torch.nn.RNN(INPUTS, UNITS, nonlinearity="relu", **options), 1)
make("gru", torch.nn.GRU(INPUTS, UNITS, **options), 1)
make("lstm", torch.nn.LSTM(INPUTS, UNITS, **options), 2)
