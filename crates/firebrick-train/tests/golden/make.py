#!/usr/bin/env python3
"""Ten steps of every optimiser and all rates of every schedule, for `tests/it/golden.rs`.

    python3 make.py

Written with torch 2.15.0 and transformers 5.24.0, in float64. Re-make them, never edit them.
"""
import json

import torch
from safetensors.torch import save_file
from torch.optim import lr_scheduler
from transformers import Adafactor, optimization

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)

STEPS = 10
SHAPES = {
    "hidden.weight": (6, 5),
    "hidden.bias": (5,),
    "table.weight": (7, 4),
    "kernel.weight": (3, 2, 2, 3),
    "head.weight": (5, 3),
    "head.bias": (3,),
}
START = {name: torch.randn(shape).float() for name, shape in SHAPES.items()}
# They grow, so that moments, clipping and Adafactor's bound have something to do.
GRADIENTS = [{name: (torch.randn(shape) * (1 + t)).float() for name, shape in SHAPES.items()} for t in range(STEPS)]


def decays(name):
    return len(SHAPES[name]) > 1


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of https://arxiv.org/abs/2302.06675."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                beta1, beta2 = group["betas"]
                update = (beta1 * m + (1 - beta1) * p.grad).sign()
                p.sub_(group["lr"] * (update + group["weight_decay"] * p))
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)


def newton_schulz(grad, coefficients, steps, eps):
    """That of torch without its cast to bfloat16."""
    a, b, c = coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


class Muon:
    """torch's for the hidden matrix, torch's AdamW for all else."""

    def __init__(self, params, lr, weight_decay, momentum, nesterov):
        torch.optim._muon._zeropower_via_newtonschulz = newton_schulz
        hidden = [p for group in params for p in group["params"] if p is self.hidden]
        rest = [{**group, "params": [p for p in group["params"] if p is not self.hidden]} for group in params]
        self.parts = [
            torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([{"lr": lr, **group} for group in rest], lr=lr, weight_decay=weight_decay),
        ]

    def step(self):
        for part in self.parts:
            part.step()


class FixedLbfgs:
    """Steps as long as the rate; the gradients are those that it finds, whatever the loss."""

    def __init__(self, params, **numbers):
        weights = [p for group in params for p in group["params"]]
        self.optimizer = torch.optim.LBFGS(weights, max_iter=1, **numbers)

    def step(self):
        self.optimizer.step(lambda: 0.0)


def adafactor(params, **rest):
    return Adafactor(params, scale_parameter=False, relative_step=False, warmup_init=False, **rest)


# Name, `[train]` of the recipe, optimiser, its numbers, and: clipping, L1, a factor on the rate of the head.
sgd, adamw = torch.optim.SGD, torch.optim.AdamW
CASES = [
    ("gd", "optimizer = 'gd'\nlearning_rate = 0.1", sgd, {"lr": 0.1}, {}),
    ("sgd", "optimizer = 'sgd'\nlearning_rate = 0.01\ndampening = 0.2\nl2 = 0.1", sgd,
     {"lr": 0.01, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}, {}),
    ("nesterov", "optimizer = 'sgd'\nlearning_rate = 0.01\nmomentum = 0.8\nnesterov = true", sgd,
     {"lr": 0.01, "momentum": 0.8, "nesterov": True}, {}),
    ("l1", "optimizer = 'sgd'\nlearning_rate = 0.01\nmomentum = 0.0\nl1 = 0.3", sgd, {"lr": 0.01}, {"l1": 0.3}),
    ("clipped", "optimizer = 'sgd'\nlearning_rate = 0.01\nmax_grad_norm = 15.0", sgd, {"lr": 0.01, "momentum": 0.9},
     {"clip": 15.0}),
    ("adam", "optimizer = 'adam'\nlearning_rate = 0.01\nl2 = 0.1", torch.optim.Adam,
     {"lr": 0.01, "weight_decay": 0.1}, {}),
    ("adamw", "learning_rate = 0.01\nweight_decay = 0.1\nbeta2 = 0.95\nhead_learning_rate = 0.05", adamw,
     {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.95)}, {"head": 5.0}),
    ("rmsprop", "optimizer = 'rmsprop'\nlearning_rate = 0.01", torch.optim.RMSprop, {"lr": 0.01}, {}),
    ("rmsprop-momentum", "optimizer = 'rmsprop'\nlearning_rate = 0.01\nmomentum = 0.9\nbeta2 = 0.9",
     torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "alpha": 0.9}, {}),
    ("adagrad", "optimizer = 'adagrad'\nlearning_rate = 0.1", torch.optim.Adagrad, {"lr": 0.1}, {}),
    ("adafactor", "optimizer = 'adafactor'\nlearning_rate = 0.01\nweight_decay = 0.1", adafactor,
     {"lr": 0.01, "weight_decay": 0.1}, {}),
    ("lion", "optimizer = 'lion'\nlearning_rate = 0.01\nweight_decay = 0.1", Lion,
     {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99)}, {}),
    ("muon", "optimizer = 'muon'\nlearning_rate = 0.01", Muon,
     {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}, {}),
    ("lbfgs-fixed", "optimizer = 'lbfgs'\nlearning_rate = 0.1\nhistory_size = 2\nline_search = false", FixedLbfgs,
     {"lr": 0.1, "history_size": 2}, {}),
]


def ten_steps(make, numbers, more):
    weights = {name: torch.nn.Parameter(w.double()) for name, w in START.items()}
    Muon.hidden = weights["hidden.weight"]
    groups = []
    for name, weight in weights.items():
        group = {"params": [weight]}
        if not decays(name) and "weight_decay" in numbers:
            group["weight_decay"] = 0.0
        if name.startswith("head."):
            group["lr"] = numbers["lr"] * more.get("head", 1.0)
        groups.append(group)
    optimizer = make(groups, **numbers)
    for gradients in GRADIENTS:
        for name, weight in weights.items():
            weight.grad = gradients[name].double()
        if "clip" in more:
            torch.nn.utils.clip_grad_norm_(weights.values(), more["clip"])
        if "l1" in more:
            for name, weight in weights.items():
                if decays(name):
                    penalty = more["l1"] * weight.abs().sum()
                    weight.grad += torch.autograd.grad(penalty, weight)[0]
        optimizer.step()
    return {name: weight.detach() for name, weight in weights.items()}


# A convex loss for the line search of LBFGS, which calls it itself.
POINTS = torch.randn(64, 6).float()
TARGETS = torch.randn(64, 5).float()


def ten_steps_of_lbfgs():
    names = [name for name in SHAPES if name.startswith("hidden")]
    weights = {name: torch.nn.Parameter(START[name].double()) for name in names}
    optimizer = torch.optim.LBFGS(weights.values(), max_iter=1, max_eval=26, history_size=3,
                                  line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        apart = POINTS.double() @ weights["hidden.weight"] + weights["hidden.bias"] - TARGETS.double()
        loss = (1 + apart.square()).sqrt().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(STEPS)] + [closure().item()]
    return {name: weight.detach() for name, weight in weights.items()}, losses


tensors = {f"start.{name}": w for name, w in START.items()} | {"points": POINTS, "targets": TARGETS}
for t, gradients in enumerate(GRADIENTS):
    tensors |= {f"gradient.{t}.{name}": g for name, g in gradients.items()}
cases = []
for name, train, make, numbers, more in CASES:
    tensors |= {f"{name}.{field}": w.float() for field, w in ten_steps(make, numbers, more).items()}
    cases.append({"name": name, "train": train})
weights, losses = ten_steps_of_lbfgs()
tensors |= {f"lbfgs.{field}": w.float() for field, w in weights.items()}
lbfgs = {"name": "lbfgs", "train": "optimizer = 'lbfgs'\nhistory_size = 3", "losses": losses}
save_file({name: t.contiguous() for name, t in tensors.items()}, "optimizers.safetensors")

TOTAL, WARMUP, HIGH, LOW = 40, 10, 0.5, 0.02


def rates(make, skip=0):
    """Of every step; the schedulers of transformers begin with a rate of zero, which a warm-up here skips."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=HIGH)
    scheduler, found = make(optimizer), []
    for _ in range(TOTAL + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found[1:skip + 1] + found[skip:TOTAL]


def warmed(make):
    """A scheduler of torch after a warm-up."""
    def both(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / WARMUP, total_iters=WARMUP - 1)
        return lr_scheduler.SequentialLR(optimizer, [warmup, make(optimizer)], milestones=[WARMUP])
    return both


def one_cycle_rates():
    """It takes no step more than it was told of."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=HIGH)
    scheduler = lr_scheduler.OneCycleLR(optimizer, HIGH, total_steps=TOTAL, pct_start=WARMUP / TOTAL,
                                        cycle_momentum=False)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(TOTAL - 1):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


t = optimization
SCHEDULES = [
    ("schedule = 'constant'", rates(lambda o: t.get_constant_schedule_with_warmup(o, WARMUP), WARMUP)),
    ("schedule = 'linear'", rates(lambda o: t.get_linear_schedule_with_warmup(o, WARMUP, TOTAL), WARMUP)),
    (f"schedule = 'linear'\nmin_learning_rate = {LOW}", rates(warmed(lambda o: lr_scheduler.LinearLR(
        o, 1.0, LOW / HIGH, TOTAL - WARMUP)))),
    ("", rates(lambda o: t.get_cosine_schedule_with_warmup(o, WARMUP, TOTAL), WARMUP)),
    (f"min_learning_rate = {LOW}", rates(lambda o: t.get_cosine_with_min_lr_schedule_with_warmup(
        o, WARMUP, TOTAL, min_lr=LOW), WARMUP)),
    ("schedule = 'step'\nstep_size = 7\ngamma = 0.3",
     rates(warmed(lambda o: lr_scheduler.StepLR(o, 7, gamma=0.3)))),
    ("schedule = 'exponential'\ngamma = 0.95", rates(warmed(lambda o: lr_scheduler.ExponentialLR(o, 0.95)))),
    ("schedule = 'noam'", rates(lambda o: t.get_inverse_sqrt_schedule(o, WARMUP), WARMUP)),
    ("schedule = 'one-cycle'", one_cycle_rates()),
]
schedules = [{"train": f"learning_rate = {HIGH}\nwarmup_steps = {WARMUP}\n{train}", "rates": found}
             for train, found in SCHEDULES]
with open("cases.json", "w", encoding="utf-8") as file:
    json.dump({"optimizers": cases, "lbfgs": lbfgs, "schedules": schedules}, file, indent=1)
    file.write("\n")
