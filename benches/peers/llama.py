#!/usr/bin/env python3
"""llama.cpp decoding the 0.5B model of the peers' scripts, by its wheel `xllamacpp`: one JSON line as bench.py prints it.

    llama.py PEERS-SCRIPTS llamacpp-f32|bf16|q8_0|q4_0     (BENCH_ROOT, BENCH_THREADS as there)

The time is that of llama.cpp's own clock for the tokens after the prompt, the likeliest ones. Linear layers are stored as the
name says; the table of words, which is the output layer too, is q8_0 in q4_0.
"""
import json
import os
import resource
import statistics
import sys
from importlib.metadata import version

scripts, peer = sys.argv[1:3]
sys.path.insert(0, scripts)
os.environ.setdefault("BENCH_THREADS", "2")
import gguf  # noqa: E402
import infer  # noqa: E402
import numpy as np  # noqa: E402
import xllamacpp  # noqa: E402

KIND = peer.removeprefix("llamacpp-")
TYPES = gguf.GGMLQuantizationType


class Writer(gguf.GGUFWriter):
    """Weights of the asked kind, and names for the tokens, without which the wheel says nothing."""

    def add_tokenizer_model(self, _):
        super().add_tokenizer_model("gpt2")
        size = json.loads((infer.CKPT / "qwen2-0.5b-f32/config.json").read_text())["vocab_size"]
        printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
        other = [b for b in range(256) if b not in printed]
        bytes_ = {b: chr(b) for b in printed} | {b: chr(256 + i) for i, b in enumerate(other)}
        merged = {256: "ab"}  # a file without merges is refused
        self.add_token_list([bytes_.get(i) or merged.get(i) or f"t{i}" for i in range(size)])
        self.add_token_types([1] * size)
        self.add_token_merges(["a b"])

    def add_tensor(self, name, value, **_):
        kind = KIND
        if value.ndim < 2 or kind == "f32":
            return super().add_tensor(name, value)
        if kind == "q4_0" and name == "token_embd.weight":
            kind = "q8_0"
        dtype = getattr(TYPES, kind.upper())
        super().add_tensor(name, gguf.quants.quantize(value, dtype), raw_dtype=dtype)


def main():
    path = infer.CKPT / f"qwen2-0.5b-{KIND}-named.gguf"
    if not path.exists():
        gguf.GGUFWriter = Writer
        infer.write_gguf(path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)
        # What writing took is no memory of the run.
        os.execv(sys.executable, [sys.executable, *sys.argv])
    threads = int(os.environ["BENCH_THREADS"])
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = params.n_batch = 256
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    server = xllamacpp.Server(params)
    prompt = [int(i) for i in infer.prompt_ids()[0]]
    asked = {"prompt": prompt, "n_predict": infer.NEW, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    rates = []
    for repeat in range(2 + int(os.environ.get("BENCH_REPEATS", "5"))):
        timings = server.handle_completions(asked)["timings"]
        assert timings["predicted_n"] == infer.NEW, timings
        rates.append((infer.NEW - 1) / (timings["predicted_ms"] / 1e3))
    rates = rates[2:]
    print(json.dumps(dict(
        peer=peer, workload="llm-decode", metric="decode-only", unit="tokens/s", median=statistics.median(rates), min=min(rates),
        max=max(rates), repeats=len(rates), threads=threads,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, versions={"xllamacpp": version("xllamacpp")})))


main()
