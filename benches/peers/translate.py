#!/usr/bin/env python3
"""The workload `translate-beam4` on CTranslate2: the same weights and sentences, the shipped model multi30k-en-de in f32.

Every thread takes batches of its own, as ours do: one batch on all threads is slower (inter_threads 1).

Use: python3 translate.py FOLDER     (shared/peers, whose measuring it uses; BENCH_ROOT as there)
"""
import subprocess
import sys

sys.path.insert(0, sys.argv[1])
import bench  # noqa: E402,F401  sets the number of threads
import ctranslate2  # noqa: E402
from common import CKPT, THREADS, measure, report_rate  # noqa: E402
from infer import sentences  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

folder = CKPT / "multi30k-en-de"
converted = CKPT / "ct2" / "multi30k-en-de-float32"


def convert():
    from ctranslate2.converters import transformers as converters

    class Loader(converters.MarianMTLoader):
        """As for BART: CTranslate2 expects padding at a Marian table's end and leaves it out; here it is token 1."""
        def _remove_pad_weights(self, spec):
            pass

        set_decoder = converters.BartLoader.set_decoder
        get_vocabulary = converters.BartLoader.get_vocabulary
        set_config = converters.BartLoader.set_config

    converters._MODEL_LOADERS["MarianConfig"] = Loader()
    converted.parent.mkdir(exist_ok=True)
    converters.TransformersConverter(str(folder)).convert(str(converted))


if sys.argv[2:] == ["convert"]:
    sys.exit(convert())
if not converted.exists():  # in a process of its own: what converting needs is not the translator's memory
    subprocess.run([sys.executable, *sys.argv, "convert"], check=True)
texts = sentences(1000)
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
model = ctranslate2.Translator(str(converted), compute_type="float32", inter_threads=THREADS, intra_threads=1)


def run():
    source = [encoding.tokens for encoding in tokenizer.encode_batch(texts)]
    written = model.translate_batch(source, beam_size=4, max_decoding_length=127, max_batch_size=32)
    ids = [[tokenizer.token_to_id(token) for token in one.hypotheses[0]] for one in written]
    return tokenizer.decode_batch(ids)


report_rate("ct2-f32", "translate-beam4", measure(run), len(texts), "sentences/s", ("ctranslate2", "tokenizers"))
