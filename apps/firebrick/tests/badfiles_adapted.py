#!/usr/bin/env python3
"""The corpus of malformed files with recipes in Firebrick's keys, and a runner that measures.

    badfiles_adapted.py generate BADFILES.py OUT [--no-big]
    badfiles_adapted.py run JOBS.json RESULTS.json

Python 3.9 or newer, Linux, standard library only. tests/badfiles.rs calls both.
"""
import importlib.util, json, os, signal, subprocess, sys, threading

# A sound recipe. Keys that a defect is put into are those of the corpus; the rest is what Firebrick requires.
RECIPE = """version = 1
task = "text-classification"
name = "demo"
seed = 7
[data]
train = "data/train.jsonl"
valid_fraction = 0.1
[tokenizer]
kind = "wordpiece"
vocab_size = 2000
[model]
hidden_size = 64
num_attention_heads = 4
[train]
epochs = 2
batch_size = 8
learning_rate = 0.001
warmup_steps = 10
max_steps = 100
"""

# Sections that recipes have in the corpus and not here: written so that its defects find their
# place, then cut off again with the cases that are about them.
ABSENT = """[privacy]
noise_multiplier = 1.0
max_grad_norm = 1.0
delta = 1e-5
[output]
dir = "out"
"""
ABSENT_CASES = {"delta_above_one", "delta_zero", "noise_negative", "clip_zero", "out_traversal"}


def generate(badfiles, out, options):
    spec = importlib.util.spec_from_file_location("badfiles", badfiles)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.RECIPE = RECIPE + ABSENT
    sys.argv = [badfiles, out, *options]
    module.main()
    manifest_path = os.path.join(out, "manifest.json")
    with open(manifest_path, encoding="utf-8") as f:
        manifest = json.load(f)
    cases = []
    for case in manifest["cases"]:
        path = os.path.join(out, case["path"])
        if case["kind"] == "recipe":
            if os.path.basename(path).removesuffix(".toml") in ABSENT_CASES:
                os.remove(path)
                continue
            with open(path, "rb") as f:
                text = f.read()
            for tail in (ABSENT.encode(), ABSENT.encode("utf-16-le")):
                text = text.replace(tail, b"", 1)
            with open(path, "wb") as f:
                f.write(text)
        cases.append(case)
    manifest["cases"] = cases
    with open(manifest_path, "w", encoding="utf-8") as f:
        json.dump(manifest, f)


def run(jobs_path, results_path):
    """jobs: {"cwd", "seconds", "commands": [[program, argument, ...]]}. A result holds the exit
    status (negative: the signal), both outputs, seconds and the peak of memory in MiB."""
    with open(jobs_path, encoding="utf-8") as f:
        jobs = json.load(f)
    results = []
    for command in jobs["commands"]:
        with open(results_path + ".stdout", "w+b") as stdout, open(results_path + ".stderr", "w+b") as stderr:
            child = subprocess.Popen(command, cwd=jobs["cwd"], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            timed_out = threading.Event()

            def kill():
                timed_out.set()
                os.kill(child.pid, signal.SIGKILL)

            timer = threading.Timer(jobs["seconds"], kill)
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
            child.returncode = os.waitstatus_to_exitcode(status)
            texts = []
            for stream in (stdout, stderr):
                stream.seek(0)
                texts.append(stream.read(1 << 20).decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode())
        results.append({
            "status": child.returncode, "timed_out": timed_out.is_set(), "stdout": texts[0], "stderr": texts[1],
            "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024,
        })
    with open(results_path, "w", encoding="utf-8") as f:
        json.dump(results, f)


if __name__ == "__main__":
    if len(sys.argv) >= 4 and sys.argv[1] == "generate":
        generate(sys.argv[2], sys.argv[3], sys.argv[4:])
    elif len(sys.argv) == 4 and sys.argv[1] == "run":
        run(sys.argv[2], sys.argv[3])
    else:
        raise SystemExit(__doc__)
