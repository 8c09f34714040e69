#!/usr/bin/env python3
"""What PyTorch makes of one batch: loss, gradients, and ten steps of AdamW, for `firebrick-train/tests/golden_gradients.rs`.

    python3 make.py

Written with torch 2.15.0 and transformers 5.24. Re-make the folders, never edit them. Each holds

- `config.json` and `model.safetensors`: a tiny model. Its weights are drawn large, so that a swapped layer shows, and its
  widths are no multiples of a vector register, so that the ends of the kernels' loops have a part in it;
- `case.safetensors`: the inputs, some rows of them padded; `losses`, before each of ten steps and after the last; and where
  there is batch norm, its running averages after all of these;
- `gradients.safetensors`: of the first loss, by every parameter that has a part in it.

Computed in float64 (where the reference's code turns to float32 of itself, so does this) and written as float32: what
differs is the rounding of the code under test.
"""
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers as tf
from safetensors.torch import save_file
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

STEPS, LEARNING_RATE, WEIGHT_DECAY = 10, 0.01, 0.1
IGNORED = -100


def randomise(model):
    for name, parameter in model.named_parameters():
        drawn = 0.3 * torch.randn_like(parameter)
        if name.endswith("Attention.q.weight"):
            # T5 has the division of scores, by the root of a head's width, in these weights.
            drawn *= model.config.d_kv**-0.5
        # A norm's scale is around one.
        around_one = parameter.ndim == 1 and name.endswith("weight")
        parameter.data = drawn + 1 if around_one else drawn
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn_like(buffer))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))


def averages(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running_" in name}


def save(tensors, path):
    def stored(tensor):
        tensor = tensor.detach().contiguous()
        return tensor.float() if tensor.is_floating_point() else tensor

    save_file({name: stored(tensor) for name, tensor in sorted(tensors.items())}, path)


def make(folder, model, inputs, loss):
    """`loss` of a model and `inputs`, in training."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    randomise(model)
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save(dict(model.named_parameters()) | averages(model), folder / "model.safetensors")

    model = model.double().train()
    values = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        value = loss(model, values)
        value.backward()
        if step == 0:
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            save(gradients, folder / "gradients.safetensors")
        optimizer.step()
        losses.append(value.detach())
    losses.append(loss(model, values).detach())
    save(inputs | averages(model) | {"losses": torch.stack(losses)}, folder / "case.safetensors")
    print(folder.name, " ".join(f"{value:.4f}" for value in losses))


def padded_ids(lengths, vocabulary):
    """Ids above 1 in rows of these lengths, 0 behind them; and which are not padding."""
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    return torch.randint(2, vocabulary, mask.shape) * mask, mask


def bert():
    config = tf.BertConfig(
        vocab_size=37, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=26,
        max_position_embeddings=23, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3,
    )
    ids, mask = padded_ids([19, 11, 5], 37)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": (torch.arange(19)[None] > torch.tensor([9, 4, 2])[:, None]).long() * mask,
        "labels": torch.tensor([2, 0, 1]),
    }

    def loss(model, x):
        logits = model(x["input_ids"], attention_mask=x["attention_mask"], token_type_ids=x["token_type_ids"]).logits
        return F.cross_entropy(logits, x["labels"])

    make("bert", tf.BertForSequenceClassification._from_config(config, attn_implementation="eager"), inputs, loss)


def masked_lm(kind, folder, **options):
    """Two tokens of each row are to be guessed."""
    config = kind.config_class(
        vocab_size=37, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=26,
        max_position_embeddings=23, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options,
    )
    ids, mask = padded_ids([19, 11, 5], 37)
    labels = torch.full_like(ids, IGNORED)
    for row, places in enumerate([[3, 17], [0, 8], [2, 4]]):
        labels[row, places] = torch.randint(2, 37, (2,))
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def loss(model, x):
        logits = model(x["input_ids"], attention_mask=x["attention_mask"]).logits
        return F.cross_entropy(logits.flatten(0, 1), x["labels"].flatten(), ignore_index=IGNORED)

    make(folder, kind._from_config(config, attn_implementation="eager"), inputs, loss)


def bert_masked_lm():
    masked_lm(tf.BertForMaskedLM, "bert-mlm")


def roberta_masked_lm():
    # Its padding is 0, its embeddings of segments are of one kind; the head has GELU whatever the encoder has.
    masked_lm(tf.RobertaForMaskedLM, "roberta-mlm", pad_token_id=0, type_vocab_size=1, hidden_act="relu")


class RecurrentForCausalLM(torch.nn.Module):
    """AWD-LSTM without dropout, by the names of its reference code."""

    class Config(dict):
        to_diff_dict = dict.copy

    def __init__(self):
        super().__init__()
        self.config = self.Config(
            model_type="firebrick-rnn", mode="LSTM", vocab_size=37, embedding_size=20, hidden_size=26, num_layers=2,
            tie_weights=True,
        )
        self.encoder = torch.nn.Embedding(37, 20)
        self.rnns = torch.nn.ModuleList([
            torch.nn.LSTM(20, 26, batch_first=True), torch.nn.LSTM(26, 20, batch_first=True)
        ])
        self.decoder = torch.nn.Linear(20, 37)
        self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        x = self.encoder(ids)
        for rnn in self.rnns:
            x, _ = rnn(x)
        return self.decoder(x)


def rnn():
    ids, mask = padded_ids([19, 11, 5], 37)
    inputs = {"input_ids": ids, "labels": ids.masked_fill(mask == 0, IGNORED)}

    def loss(model, x):
        logits = model(x["input_ids"])
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), x["labels"][:, 1:].flatten(), ignore_index=IGNORED)

    make("rnn", RecurrentForCausalLM(), inputs, loss)


class BilstmForSequenceClassification(torch.nn.Module):
    """The strongest states of a bidirectional LSTM."""

    def __init__(self):
        super().__init__()
        self.config = RecurrentForCausalLM.Config(
            model_type="firebrick-bilstm", vocab_size=37, embedding_size=20, hidden_size=13, num_hidden_layers=2,
            max_length=23, hidden_dropout_prob=0.0, classifier_dropout=0.0,
        )
        self.embedding = torch.nn.Embedding(37, 20)
        self.lstm = torch.nn.LSTM(20, 13, num_layers=2, bidirectional=True, batch_first=True)
        self.classifier = torch.nn.Linear(26, 3)

    def forward(self, ids, mask):
        lengths = mask.sum(1)
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-torch.inf)
        return self.classifier(x.max(1).values)


def bilstm():
    ids, mask = padded_ids([19, 11, 5], 37)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([2, 0, 1])}

    def loss(model, x):
        return F.cross_entropy(model(x["input_ids"], x["attention_mask"]), x["labels"])

    make("bilstm", BilstmForSequenceClassification(), inputs, loss)


def gpt2():
    config = tf.GPT2Config(
        vocab_size=37, n_embd=20, n_layer=2, n_head=2, n_inner=26, n_positions=23,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
    )
    ids, mask = padded_ids([19, 11, 5], 37)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}

    def loss(model, x):
        logits = model(x["input_ids"], attention_mask=x["attention_mask"]).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), x["labels"][:, 1:].flatten(), ignore_index=IGNORED)

    make("gpt2", tf.GPT2LMHeadModel._from_config(config, attn_implementation="eager"), inputs, loss)


def t5(folder="t5", **options):
    config = tf.T5Config(
        vocab_size=37, d_model=18, d_kv=7, d_ff=26, num_layers=2, num_decoder_layers=2, num_heads=2, dropout_rate=0.0,
        # Few, so that the batch has distances that share a score.
        relative_attention_num_buckets=8, relative_attention_max_distance=12, **options,
    )
    ids, mask = padded_ids([19, 11, 5], 37)
    labels, label_mask = padded_ids([4, 17, 9], 37)
    start = torch.full((3, 1), config.pad_token_id)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": torch.cat([start, labels[:, :-1]], dim=1),
        "labels": labels.masked_fill(label_mask == 0, IGNORED),
    }

    def loss(model, x):
        asked = {name: x[name] for name in ["input_ids", "attention_mask", "decoder_input_ids"]}
        logits = model(**asked).logits
        return F.cross_entropy(logits.flatten(0, 1), x["labels"].flatten(), ignore_index=IGNORED)

    make(folder, tf.T5ForConditionalGeneration._from_config(config, attn_implementation="eager"), inputs, loss)


def t5_1_1():
    t5("t5-1.1", feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def resnet():
    config = tf.ResNetConfig(
        embedding_size=6, hidden_sizes=[12, 20], depths=[1, 2], layer_type="bottleneck", num_labels=3,
    )
    # Nothing to pad: images of one size. Smooth, as images are: the shift of a channel that is above zero in every window of
    # the pooling is taken away by the next norm, and has no gradient but rounding.
    images = F.interpolate(torch.randn(3, 3, 5, 4), size=(26, 22), mode="bilinear")
    inputs = {"pixel_values": images, "labels": torch.tensor([1, 2, 0])}

    def loss(model, x):
        return F.cross_entropy(model(x["pixel_values"]).logits, x["labels"])

    make("resnet", tf.ResNetForImageClassification._from_config(config), inputs, loss)


def wav2vec2():
    config = tf.Wav2Vec2Config(
        vocab_size=9, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=26,
        conv_dim=[12, 14, 10], conv_kernel=[10, 3, 2], conv_stride=[5, 2, 2],
        num_conv_pos_embeddings=6, num_conv_pos_embedding_groups=2,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0,
        layerdrop=0.0, apply_spec_augment=False,
    )
    samples = torch.tensor([430, 300, 190])
    used = torch.arange(430)[None] < samples[:, None]
    inputs = {
        "input_values": torch.randn(3, 430) * used,
        "attention_mask": used.long(),
        # 0 is the blank; a letter comes twice in a row.
        "labels": torch.tensor([[3, 3, 8, 1, 5], [2, 7, 4, 0, 0], [6, 1, 0, 0, 0]]),
        "label_lengths": torch.tensor([5, 3, 2]),
    }

    def loss(model, x):
        logits = model(x["input_values"], attention_mask=x["attention_mask"]).logits
        frames = model._get_feat_extract_output_lengths(samples)
        log_p = F.log_softmax(logits, dim=-1).transpose(0, 1)
        return F.ctc_loss(log_p, x["labels"], frames, x["label_lengths"], blank=0)

    inputs["frames"] = tf.Wav2Vec2ForCTC(config)._get_feat_extract_output_lengths(samples)
    make("wav2vec2", tf.Wav2Vec2ForCTC._from_config(config, attn_implementation="eager"), inputs, loss)


# Seeds with which rounding stays what it is. With some others the losses of T5 1.1 in PyTorch's own float32 and float64 are
# 2e-4 apart after ten steps, and a shift of ResNet has no gradient, as said above.
FAMILIES = {
    bert: 0, bert_masked_lm: 0, roberta_masked_lm: 0, rnn: 0, bilstm: 0, gpt2: 1, t5: 2, t5_1_1: 1, resnet: 4, wav2vec2: 4,
}
for family, seed in FAMILIES.items():
    torch.manual_seed(seed)
    family()
