#!/usr/bin/env python3
"""The workload `train-sst2` of `firebrick bench`, on PyTorch eager: same model, batch and optimiser step.

Use: python3 train_sst2.py CONFIG.json     (the config.json of a model trained by the recipe sst2)
Needs: pip install torch transformers
"""
import json, os, resource, sys, time
import torch, transformers

threads = os.cpu_count()
torch.set_num_threads(threads)
torch.manual_seed(0)
config = transformers.BertConfig.from_pretrained(sys.argv[1])
model = transformers.BertForSequenceClassification(config).train()
optim = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
B, T = 32, 24
ids = torch.tensor([[(i * 131 + t * 37) % (config.vocab_size - 5) + 5 for t in range(T)] for i in range(B)])
mask, labels = torch.ones_like(ids), torch.arange(B) % 2


def step():
    loss = model(ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optim.step()
    optim.zero_grad()
    return float(loss.detach())


def once(n):
    begun = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - begun) / n


once(3)
inner = max(1, int(0.2 / once(1)) + 1)
values = sorted(B * T / once(inner) for _ in range(5))
print(json.dumps({
    "peer": "pytorch-eager", "workload": "train-sst2", "metric": "throughput", "unit": "tokens/s",
    "median": values[2], "min": values[0], "max": values[4], "repeats": 5, "threads": threads,
    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
}))
