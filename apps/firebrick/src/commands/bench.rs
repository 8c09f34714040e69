//! `firebrick bench`: the workloads of `shared/peers/bench.py`, with the same inputs and lines, on the same checkpoints.
//!
//! Those lie in `$BENCH_ROOT/checkpoints`, made by `shared/peers/make_checkpoints.py`; shipped models need not.

pub mod measure;

use std::{
    env, fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use firebrick_core::{
    arch::{
        self, AnyModel,
        bert::{self, BertConfig},
        gpt2::Gpt2Config,
        inputs::{Array, Inputs},
    },
    checkpoint::Source,
    generate::{GenerationConfig, generate},
    layers::activation::Activation,
};
use firebrick_data::{
    audio::{
        mel::{Mel, MelConfig},
        read::{Limits, read},
    },
    image::{Colour, Picture, augment::Augment, decode, resize::Filter},
};
use firebrick_nlp::{
    classification, embed::Embedder, translation::translator::Translator, workload::TrainStep,
};
use firebrick_speech::{
    classification::{classifier::SoundClassifier, task::frames},
    recognition::{corpus::an4, recognizer::Recognizer},
};
use firebrick_train::sampler::mix;
use firebrick_vision::classification::{layouts, processor::Processor};
use rayon::prelude::*;
use serde_json::json;

use super::{Outcome, recipe::Opened};
use crate::{
    cli::{BenchArgs, Global},
    failure::{Failure, MISSING, USAGE},
    places,
};
use measure::{Report, SHORT, time};

const WORKLOADS: &str = "bert-b1, bert-b8, vit-b1, vit-b8, resnet50-b1, resnet50-b8, mobilenetv2-b1, yolos-b1, \
    wav2vec2-b1, data-logmel, augment, minilm-256, gpt2-decode, llm-decode, translate-beam4, whisper-base, commands-b1, \
    an4-lm, start-bert, train-nanogpt, train-babygpt, train-gpt-b12, train-bert-b8, train-sst2";

/// Where things are.
struct Bench<'a> {
    workload: &'a str,
    /// In place of the workload's own checkpoint.
    model: Option<&'a Path>,
    root: Option<PathBuf>,
    device: Device,
}

/// Threads that a workload is measured with unless `--threads` says otherwise.
pub fn threads() -> usize {
    measure::threads()
}

pub fn run(args: &BenchArgs, global: &Global) -> Outcome {
    let bench = Bench {
        workload: &args.workload,
        model: args.model.as_deref(),
        root: env::var_os("BENCH_ROOT").map(PathBuf::from),
        device: global.device.open()?,
    };
    match args.workload.as_str() {
        "bert-b1" => bench.bert(1),
        "bert-b8" => bench.bert(8),
        "vit-b1" => bench.images("vit-base-16", [1, 3, 224, 224]),
        "vit-b8" => bench.images("vit-base-16", [8, 3, 224, 224]),
        "resnet50-b1" => bench.images("resnet-50", [1, 3, 224, 224]),
        "resnet50-b8" => bench.images("resnet-50", [8, 3, 224, 224]),
        "mobilenetv2-b1" => bench.images("mobilenet_v2", [1, 3, 224, 224]),
        "yolos-b1" => bench.images("yolos-tiny", [1, 3, 512, 683]),
        "wav2vec2-b1" => bench.forward("wav2vec2-base", "input_values", noise(&[1, CLIP])),
        "data-logmel" => bench.log_mel("jfk"),
        "augment" => bench.augment("coco128-street"),
        "minilm-256" => bench.sentences(256),
        "gpt2-decode" => bench.decode("gpt2"),
        "llm-decode" => bench.decode("qwen2-0.5b-f32"),
        "translate-beam4" => bench.translate("multi30k-en-de", 4),
        "whisper-base" => bench.whisper("whisper-base"),
        "commands-b1" => bench.keyword("commands"),
        "an4-lm" => bench.recognition("an4"),
        "start-bert" => bench.start("a film of rare grace and quiet power"),
        "train-nanogpt" => bench.train_characters([4, 4, 128], 64, 12),
        "train-babygpt" => bench.train_characters([6, 6, 384], 256, 8),
        "train-gpt-b12" => bench.train_characters([6, 6, 384], 64, 12),
        "train-bert-b8" => bench.train_bert(8, 128),
        "train-sst2" => bench.train_sst2(32, 24),
        other => Err(Failure::text(USAGE, format!("no workload `{other}`: {WORKLOADS}"))),
    }
}

/// Samples of the peers' clip, 11 s at 16 kHz.
const CLIP: usize = 176_000;

/// The peers' token ids, whatever they mean.
fn token_ids(shape: [usize; 2]) -> Array {
    let values = (0..(shape[0] * shape[1]) as i64).map(|i| 1000 + i * 7919 % 20_000);
    Array::Ints { shape: shape.into(), values: values.collect() }
}

/// In [-1, 1).
fn number(i: usize) -> f32 {
    (mix(0, i as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn noise(shape: &[usize]) -> Array {
    let count = shape.iter().product::<usize>();
    Array::Floats { shape: shape.into(), values: (0..count).map(number).collect() }
}

impl Bench<'_> {
    /// `--model`, or the checkpoint of that name where there is one.
    fn find(&self, name: &str) -> Option<Source> {
        let made = self.root.as_ref().map(|root| root.join("checkpoints").join(name));
        let made = made.filter(|folder| folder.join("config.json").exists());
        self.model.map(Path::to_path_buf).or(made).map(Source::folder)
    }

    /// The same, or else the shipped model.
    fn ours(&self, name: &str) -> Source {
        let shipped = || places::shipped(name).expect("workloads name models that are shipped");
        self.find(name).unwrap_or_else(shipped)
    }

    fn checkpoint(&self, name: &str) -> Result<Source, Failure> {
        self.find(name).ok_or_else(|| {
            let message = format!(
                "no checkpoint {name}: give --model, or set BENCH_ROOT and make it as `cargo xtask bench --peers` does"
            );
            Failure::text(MISSING, message)
        })
    }

    /// A file somewhere under `$BENCH_ROOT/data/SET`.
    fn data(&self, set: &str, file: &str) -> Result<PathBuf, Failure> {
        let folder = self.root.as_ref().map(|root| root.join("data").join(set));
        folder.and_then(|folder| below(&folder, file)).ok_or_else(|| {
            let message = format!(
                "no {file} in $BENCH_ROOT/data/{set}: unpack shared/data/{set}.tar.xz there"
            );
            Failure::text(MISSING, message)
        })
    }

    fn text(&self, set: &str, file: &str) -> Result<String, Failure> {
        let path = self.data(set, file)?;
        Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?)
    }

    fn inputs<const N: usize>(&self, arrays: [(&str, Array); N]) -> Inputs {
        let arrays = arrays.map(|(name, array)| (name.to_string(), array));
        Inputs::new(arrays.into(), &self.device)
    }

    /// Latency of sequences of 128 tokens through BERT-base; one of random weights where there is no checkpoint.
    fn bert(&self, rows: usize) -> Outcome {
        let ids = token_ids([rows, 128]);
        let mask = Array::Ints { shape: vec![rows, 128], values: vec![1; rows * 128] };
        let inputs = self.inputs([("input_ids", ids), ("attention_mask", mask)]);
        if let Some(source) = self.find("bert-base") {
            return self.latency(&*arch::open(&source, &self.device)?, &inputs);
        }
        self.device.seed(0);
        let config = BertConfig::base();
        let model = config.init_classifier(2, &self.device);
        let ids = inputs.ids("input_ids", config.vocab_size).map_err(anyhow::Error::new)?;
        let timing = time(3, SHORT, || {
            model.forward(ids.clone(), None, None).into_data();
        });
        Report::new(self.workload).with(json!({"checkpoint": "random"})).latency(&timing);
        Ok(())
    }

    fn images(&self, checkpoint: &str, shape: [usize; 4]) -> Outcome {
        self.forward(checkpoint, "pixel_values", noise(&shape))
    }

    fn forward(&self, checkpoint: &str, input: &str, array: Array) -> Outcome {
        let model = arch::open(&self.checkpoint(checkpoint)?, &self.device)?;
        self.latency(&*model, &self.inputs([(input, array)]))
    }

    fn latency(&self, model: &dyn AnyModel, inputs: &Inputs) -> Outcome {
        model.forward(inputs).map_err(anyhow::Error::new)?;
        let timing = time(2, SHORT, || {
            model.forward(inputs).expect("it took them before");
        });
        Report::new(self.workload).latency(&timing);
        Ok(())
    }

    /// An hour of sound to Whisper's frames: a clip of 11 s and a little noise, over and over, as the peers read it.
    fn log_mel(&self, set: &str) -> Outcome {
        const RATE: usize = 16_000;
        let clip = read(&self.data(set, "jfk.flac")?, RATE as u32, &Limits::default());
        let clip = clip.map_err(anyhow::Error::new)?;
        let hour: Vec<f32> =
            (0..3600 * RATE).map(|i| clip[i % clip.len()] + 1e-3 * number(i)).collect();
        let mel = Mel::new(&MelConfig::whisper(80));
        let timing = time(1, SHORT, || {
            mel.frames(&hour);
        });
        Report::new(self.workload).rate(&timing, 3600.0, "audio s/s");
        Ok(())
    }

    /// Photographs, decoded before, to a batch of training pictures as image recipes make it.
    fn augment(&self, set: &str) -> Outcome {
        let folder = self.root.as_ref().map(|root| root.join("data").join(set));
        let folder = folder.filter(|folder| folder.is_dir()).ok_or_else(|| {
            let message =
                format!("no $BENCH_ROOT/data/{set}: unpack shared/data/{set}.tar.xz there");
            Failure::text(MISSING, message)
        })?;
        let files = layouts::pictures(&folder)?;
        let photos = files.iter().map(|file| decode::read(file, Colour::Rgb));
        let photos = photos.collect::<Result<Vec<Picture>, _>>().map_err(anyhow::Error::new)?;
        let processor = Processor {
            size: [224; 2],
            shortest_edge: None,
            colour: Colour::Rgb,
            filter: Filter::Bilinear,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        };
        let augment = Augment {
            rotate: 15.0,
            crop: 0.2,
            flip: 0.5,
            brightness: 0.3,
            contrast: 0.3,
            saturation: 0.3,
            blur: 1.0,
            ..Augment::default()
        };
        let timing = time(1, SHORT, || {
            let changed = photos.par_iter().enumerate().map(|(i, photo)| {
                augment.apply(&processor.size(photo), mix(0, i as u64)) // as one step draws it
            });
            processor.batch(&changed.collect::<Vec<_>>(), &self.device);
        });
        Report::new(self.workload).rate(&timing, photos.len() as f64, "images/s");
        Ok(())
    }

    /// Sentences to vectors, tokenizer included.
    fn sentences(&self, count: usize) -> Outcome {
        let text = self.text("multi30k", "test_2016_flickr.en")?;
        let texts: Vec<&str> = text.lines().take(count).collect();
        let embedder = Embedder::open(&self.checkpoint("minilm")?, &self.device)?;
        let timing = time(1, SHORT, || {
            embedder.embed(&texts, 32);
        });
        Report::new(self.workload).rate(&timing, texts.len() as f64, "sentences/s");
        Ok(())
    }

    /// 64 tokens after a prompt of 32: all of it, and the steps without the prompt's.
    fn decode(&self, checkpoint: &str) -> Outcome {
        const PROMPT: usize = 32;
        const NEW: usize = 64;
        let ids = (0..PROMPT as i64).map(|i| 100 + i * 37).collect();
        let ids = Array::Ints { shape: vec![1, PROMPT], values: ids };
        let inputs = self.inputs([("input_ids", ids)]);
        let model = arch::open(&self.checkpoint(checkpoint)?, &self.device)?;
        write(&*model, &inputs, 1)?;
        let run = |new| write(&*model, &inputs, new).expect("it took them before");
        let whole = time(2, SHORT, || run(NEW));
        let prompt = time(1, SHORT, || run(1)).median();
        let extra = json!({"prompt_ms": prompt * 1e3});
        Report::new(self.workload).with(extra).rate(&whole, NEW as f64, "tokens/s");
        let steps = |seconds| (NEW - 1) as f64 / (seconds - prompt);
        Report::new(self.workload).line("decode-only", "tokens/s", &whole, steps);
        Ok(())
    }

    /// The 1,000 sentences of test2016, tokenizer included.
    fn translate(&self, checkpoint: &str, num_beams: usize) -> Outcome {
        let text = self.text("multi30k", "test_2016_flickr.en")?;
        let texts: Vec<&str> = text.lines().collect();
        let translator = Translator::open(&self.checkpoint(checkpoint)?, &self.device)?;
        let config = GenerationConfig { num_beams, ..translator.config().clone() };
        let timing = time(1, SHORT, || {
            translator.translate(&texts, &config, 32).expect("sentences of plain text");
        });
        Report::new(self.workload).rate(&timing, texts.len() as f64, "sentences/s");
        Ok(())
    }

    /// Features of 30 s to 100 tokens. The peers also compute the features, some 2 % of their time.
    fn whisper(&self, checkpoint: &str) -> Outcome {
        // <|startoftranscript|><|en|><|transcribe|><|notimestamps|>
        let prompt =
            Array::Ints { shape: vec![1, 4], values: vec![50_258, 50_259, 50_359, 50_363] };
        let inputs =
            self.inputs([("input_features", noise(&[1, 80, 3000])), ("decoder_input_ids", prompt)]);
        let model = arch::open(&self.checkpoint(checkpoint)?, &self.device)?;
        write(&*model, &inputs, 1)?;
        let timing = time(1, SHORT, || write(&*model, &inputs, 100).expect("it took them before"));
        Report::new(self.workload).with(json!({"features": "given"})).latency(&timing);
        Ok(())
    }

    /// A second of sound to a word: the network, as its peer has it, and then with the spectrogram before it.
    fn keyword(&self, model: &str) -> Outcome {
        let classifier = SoundClassifier::open(&self.ours(model), &self.device)?;
        let samples: Vec<f32> = (0..classifier.sample_rate() as usize).map(number).collect();
        let seen = [frames(&samples, &classifier.preprocessor, &classifier.mel)];
        let network = time(2, SHORT, || {
            classifier.of_frames(&seen, 1);
        });
        Report::new(self.workload).latency(&network);
        let whole = time(2, SHORT, || {
            classifier.predict(&[&samples], 1);
        });
        let report = Report::new(self.workload);
        report.line("with spectrogram", "ms", &whole, |seconds| seconds * 1e3);
        Ok(())
    }

    /// Recordings of the test part to words, one after the other, by beam search with lexicon and n-grams.
    fn recognition(&self, model: &str) -> Outcome {
        const RECORDINGS: usize = 20;
        let recognizer = Recognizer::open(&self.ours(model), &self.device)?;
        let rate = recognizer.sample_rate();
        let index = self.data("an4", "index.csv")?;
        let test = an4(index.parent().context("a folder")?)?.test.unwrap_or_default();
        let recordings =
            test.iter().take(RECORDINGS).map(|entry| read(&entry.path, rate, &Limits::default()));
        let recordings: Vec<Vec<f32>> =
            recordings.collect::<Result<_, _>>().map_err(anyhow::Error::new)?;
        let seconds = recordings.iter().map(Vec::len).sum::<usize>() as f64 / f64::from(rate);
        let timing = time(1, SHORT, || {
            for samples in &recordings {
                recognizer.transcribe(&[samples], 1);
            }
        });
        Report::new(self.workload).rate(&timing, seconds, "audio s/s");
        Ok(())
    }

    /// From the start of a process to the first answer, as a user of the command line waits.
    fn start(&self, text: &str) -> Outcome {
        let source = self.checkpoint("bert-base")?;
        let me = env::current_exe().context("this program's path")?;
        let mut command = Command::new(me);
        command.args(["nlp", "sentiment", text, "--model"]).arg(source.path(""));
        let threads = rayon::current_num_threads().to_string();
        command.env("RAYON_NUM_THREADS", threads).stdout(Stdio::null());
        let mut peak: f64 = 0.0;
        let mut run = || -> anyhow::Result<()> {
            let mut child = command.spawn().context("starting this program again")?;
            let id = child.id().to_string();
            let watcher = thread::spawn(move || {
                let mut peak = 0.0;
                while let Some(now) = measure::peak_mb(&id) {
                    peak = now; // the kernel's own high-water mark, so only the last one counts
                    thread::sleep(Duration::from_millis(2));
                }
                peak
            });
            let status = child.wait().context("waiting for it")?;
            ensure!(status.success(), "it ended with {status}");
            peak = peak.max(watcher.join().unwrap_or_default());
            Ok(())
        };
        run()?; // fills the page cache
        let timing = time(0, 0.0, || run().expect("it did before"));
        let report = Report { peak: Some(peak), ..Report::new(self.workload) };
        report.line("process start to result", "ms", &timing, |seconds| seconds * 1e3);
        Ok(())
    }

    /// nanoGPT's model and step: layers, heads and width; rows of `block` characters.
    fn train_characters(
        &self,
        [layers, heads, width]: [usize; 3],
        block: usize,
        rows: usize,
    ) -> Outcome {
        let config = Gpt2Config {
            n_embd: width,
            n_layer: layers,
            n_head: heads,
            n_positions: block,
            activation_function: Activation::Gelu,
            resid_pdrop: 0.0,
            embd_pdrop: 0.0,
            attn_pdrop: 0.0,
            ..Gpt2Config::small()
        };
        let text = self.text("tinyshakespeare", "input.txt")?;
        let mut step = TrainStep::characters(&text, &config, rows, &self.device);
        self.train(rows * block, || step.run())
    }

    fn train_bert(&self, rows: usize, tokens: usize) -> Outcome {
        let device = self.device.clone().autodiff();
        device.seed(0);
        let (config, model) = match self.find("bert-base") {
            Some(source) => {
                let loaded = bert::load_classifier(&source, &device)?;
                (loaded.config, loaded.model)
            }
            None => (BertConfig::base(), BertConfig::base().init_classifier(2, &device)),
        };
        let mut step = TrainStep::of(model, config.vocab_size, rows, tokens, 2e-5);
        self.train(rows * tokens, || step.run())
    }

    /// The encoder of the recipe sst2, from random weights.
    fn train_sst2(&self, rows: usize, tokens: usize) -> Outcome {
        let recipe: classification::recipe::Recipe = Opened::named("sst2")?.parse(&[])?;
        let config = recipe
            .model
            .bert(&recipe.tokenizer, recipe.tokenizer.vocab_size)
            .context("the recipe sst2")?;
        let mut step = TrainStep::new(&config, rows, tokens, &self.device);
        self.train(rows * tokens, || step.run())
    }

    fn train(&self, tokens: usize, step: impl FnMut()) -> Outcome {
        let timing = time(3, 1.0, step);
        Report::new(self.workload)
            .with(json!({"items_per_step": tokens}))
            .rate(&timing, 1.0, "steps/s");
        Ok(())
    }
}

/// `new` tokens, whatever they are: random weights never stop by themselves.
fn write(model: &dyn AnyModel, inputs: &Inputs, new: usize) -> anyhow::Result<()> {
    let decoder = model.decoder().context("this architecture writes no text")?;
    let config = GenerationConfig { max_new_tokens: Some(new), ..GenerationConfig::default() };
    generate(decoder, inputs, &config, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(())
}

/// The first file of this name in a folder or below it.
fn below(folder: &Path, file: &str) -> Option<PathBuf> {
    let path = folder.join(file);
    if path.is_file() {
        return Some(path);
    }
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut folders: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders.iter().find_map(|folder| below(folder, file))
}
