//! Arguments; doc comments are the help text.

pub mod speech;
pub mod vision;

use std::{path::PathBuf, str::FromStr};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{FalseyValueParser, RangedU64ValueParser},
};
use firebrick_core::device::DeviceSpec;
use firebrick_train::{job::check_name, track::Server};
use firebrick_vision::detection::annotations::Format;

use crate::{
    failure::{Failure, USAGE},
    progress::Style,
};
use vision::VisionCommand;

/// Trains, evaluates, compresses and runs models of texts, pictures and sounds in one binary, without Python.
#[derive(Debug, Parser)]
#[command(name = "firebrick", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// auto, flex, ndarray, wgpu, wgpu:1, cuda, cuda:1
    #[arg(long, global = true, default_value = "flex", env = "FIREBRICK_DEVICE")]
    pub device: DeviceSpec,
    /// In place of the recipe's seed
    #[arg(long, global = true, env = "FIREBRICK_SEED")]
    pub seed: Option<u64>,
    /// One JSON document on stdout; of what comes bit by bit (`interpret`, `assistant`) one a line. `completions` and `recipe reference` print text anyway
    #[arg(long, global = true, env = "FIREBRICK_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[arg(long, global = true, default_value = "auto", env = "FIREBRICK_PROGRESS")]
    pub progress: Style,
    /// Only results and errors
    #[arg(short, long, global = true, env = "FIREBRICK_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// More on stderr: what `speech assistant` and `speech home` heard
    #[arg(short, long, global = true, env = "FIREBRICK_VERBOSE", value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Refuse what would use the network: --track, and a home over MQTT
    #[arg(long, global = true, env = "FIREBRICK_OFFLINE", value_parser = FalseyValueParser::new())]
    pub offline: bool,
    /// CPU threads to compute with; 0 takes all cores
    #[arg(long, global = true, default_value_t = 0, env = "FIREBRICK_THREADS", value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(0..=1024))]
    pub threads: usize,
    /// Folder of run folders
    #[arg(long, global = true, default_value = "runs", env = "FIREBRICK_RUNS", value_name = "DIR")]
    pub runs: PathBuf,
}

impl Global {
    /// For what needs the network, which `--offline` forbids.
    pub fn online(&self, wanted: &str) -> Result<(), Failure> {
        match self.offline {
            true => Err(Failure::text(USAGE, format!("--offline: {wanted} uses the network"))),
            false => Ok(()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train SST-2 sentiment from embedded data, compare with a baseline, write a report
    Start(StartArgs),
    /// List what works on this machine and how to mend what does not
    Doctor,
    /// Print a shell's completion script
    Completions { shell: clap_complete::Shell },
    /// Shipped recipes: list, show, copy, check, schema
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Data sets and your own files: list, fetch, show, check
    #[command(subcommand)]
    Data(DataCommand),
    /// Train a recipe, or continue its run
    Train(TrainArgs),
    /// Search for the best values of a recipe's keys, or go on with a search
    Sweep(SweepArgs),
    /// Score a model on labelled rows
    Eval(EvalArgs),
    /// Make a model smaller, measure what became of it, hold it to a budget
    Compress(CompressArgs),
    /// Answer every row of a file
    Predict(PredictArgs),
    /// Raw arrays through a model: .npz in, .npz out
    Forward(ForwardArgs),
    /// Token ids through a model that writes: .npz in, .npz out
    Generate(GenerateArgs),
    /// Model folders: list, inspect, convert
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Run folders: list, show, compare, remove
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Measure a workload; one JSON line
    Bench(BenchArgs),
    /// Text applications
    #[command(subcommand)]
    Nlp(NlpCommand),
    /// Applications that listen
    #[command(subcommand)]
    Speech(SpeechCommand),
    /// Picture applications
    #[command(subcommand)]
    Vision(VisionCommand),
}

#[derive(Debug, Args)]
pub struct StartArgs {
    /// Name of the run folder
    #[arg(long, default_value = "start", value_parser = run_name)]
    pub run: String,
    /// Change one key of the recipe: --set train.epochs=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Recipe file, or the name of a shipped recipe
    pub recipe: String,
    /// Name of the run folder; the recipe's name otherwise
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub run: Option<String>,
    /// Change one key of the recipe: --set train.epochs=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// A run for each value of a key, and the mean of their scores: --each data.held_speaker=theo,lucas
    #[arg(long, value_name = "KEY=A,B,..")]
    pub each: Option<Each>,
    /// Save a checkpoint and stop after so many seconds of steps; what comes before the first step takes its own time
    #[arg(long, value_name = "S")]
    pub max_seconds: Option<u64>,
    /// Send losses and scores to a server while it trains: --track mlflow:http://localhost:5000
    #[arg(long, value_name = "mlflow:URL", env = "FIREBRICK_TRACK")]
    pub track: Option<Server>,
}

/// Values of a key, each of which is trained with.
#[derive(Debug, Clone)]
pub struct Each {
    pub key: String,
    pub values: Vec<String>,
}

impl FromStr for Each {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').ok_or("is not KEY=A,B,..")?;
        let values: Vec<String> = values.split(',').map(str::to_string).collect();
        let others = values.iter().enumerate().map(|(i, value)| (value, &values[..i]));
        for (value, before) in others {
            if value.is_empty() || before.contains(value) {
                return Err(format!("{value:?} is empty, or there twice"));
            }
        }
        Ok(Self { key: key.to_string(), values })
    }
}

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Recipe file or shipped recipe with a `[sweep]` table
    pub recipe: String,
    /// Name of the study's folder among the runs; the recipe's name and `-sweep` otherwise
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub run: Option<String>,
    /// Change one key of the recipe in all trials: --set train.epochs=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// In place of the recipe's number of trials
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub trials: Option<usize>,
    /// Trials at a time, each in a process of its own with its share of the threads
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    pub workers: usize,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Model folder, run folder, or name of a shipped model
    pub model: String,
    /// File with labelled rows, or id of a data set
    #[arg(long, value_name = "PATH-or-ID")]
    pub data: Option<String>,
    /// Rows that another model was made from, in place of those of this one's own recipe
    #[arg(long, value_name = "MODEL", conflicts_with = "data")]
    pub data_of: Option<String>,
    /// Part of the data set
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Fail with code 4 unless it holds: --require 'accuracy>=0.9' (repeatable)
    #[arg(long, value_name = "SCORE>=VALUE")]
    pub require: Vec<String>,
    /// Also answer so many rows one by one: latency, throughput, memory
    #[arg(long, default_value_t = 0, value_name = "ROWS")]
    pub latency: usize,
    /// Also judge a model that sees under noise, blur, light, low contrast and coarse pixels, each of five strengths
    #[arg(long)]
    pub robustness: bool,
    /// With --json, also the scores of what was drawn from the rows for the intervals: the i-th is of the same rows for
    /// every model
    #[arg(long, hide = true)]
    pub resampled: bool,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Rows per batch
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub batch_size: usize,
    /// At most so many rows, spread evenly over the part
    #[arg(skip)]
    pub rows: Option<usize>,
}

#[derive(Debug, Args)]
pub struct CompressArgs {
    /// Model folder, run folder, or name of a shipped model
    pub model: String,
    /// The smaller model goes there; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Store weights as whole numbers
    #[arg(long, value_parser = ["int8", "int4"])]
    pub quantize: Option<String>,
    /// Also round so that layers say the same of so many training rows (GPTQ), in place of each weight to the nearest
    #[arg(long, value_name = "ROWS", requires = "quantize", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub gptq: Option<u32>,
    /// Take out a share of each layer's feed-forward neurons (--prune neurons=0.5) or attention heads (--prune heads=0.5), of
    /// the channels of a ResNet's stages (--prune channels=0.5) or of the layers (--prune layers=0.5), or so many layers
    /// (--prune layers=2); or set a share of all weights to zero, which makes nothing smaller or faster (--prune weights=0.5)
    #[arg(long, value_name = "WHAT=AMOUNT")]
    pub prune: Option<String>,
    /// Then train for so many epochs on the model's own recipe: what --prune leaves, and with --quantize once more with
    /// weights that are rounded in every step as they will be stored (quantisation-aware training). Weights become zeros little by
    /// little meanwhile. 0 trains nothing, nor does --budget then
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub fine_tune: Option<u32>,
    /// Let the original teach what is trained: it says what it thinks of texts that are spliced from the training rows.
    /// Classification of texts only
    #[arg(long, requires = "fine_tune")]
    pub distill: bool,
    /// Fail with code 4 unless all hold: size, latency or memory in MB, ms or % of the original; scores in points or %
    /// more than it. Without --quantize and --prune everything that needs no training is tried, and if that is not enough, what
    /// pruning leaves is trained for three epochs on the model's own recipe, texts with the original as teacher (--fine-tune 0: not)
    #[arg(long, value_name = "size<=25%,accuracy>=-0.5")]
    pub budget: Option<String>,
    /// File with labelled rows, or id of a data set, in place of the validation part of the model's own data
    #[arg(long, value_name = "PATH-or-ID")]
    pub data: Option<String>,
    /// Part of the data that the candidates are measured on
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Also measure each weight alone as whole numbers, and try candidates whose dearest weights stay wider
    #[arg(long, requires = "quantize")]
    pub sensitivity: bool,
    #[command(flatten)]
    pub columns: ColumnArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ColumnArgs {
    /// Column (or JSON key) with the text
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub text_column: String,
    /// Column (or JSON key) with the label
    #[arg(long, default_value = "label", value_name = "NAME")]
    pub label_column: String,
    /// CSV and TSV without a header: text first, then the label
    #[arg(long)]
    pub no_header: bool,
}

#[derive(Debug, Args)]
pub struct PredictArgs {
    /// Model folder, run folder, or name of a shipped model
    pub model: String,
    /// JSON lines, CSV, TSV, Parquet or a text file (one text a line); a picture, a recording, or a folder of them
    #[arg(long, value_name = "PATH")]
    pub input: PathBuf,
    /// Answers go there instead of stdout: JSON lines, or by its ending .csv, .tsv or .parquet
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Label texts `neutral` where the model is less sure than this probability
    #[arg(long, value_name = "P", value_parser = probability)]
    pub neutral_below: Option<f32>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Rows per batch
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub batch_size: usize,
}

#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// Model or run folder, or the name of a shipped model
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Arrays by the names that `transformers` uses: input_ids, attention_mask, pixel_values, ..
    #[arg(long, value_name = "FILE.npz")]
    pub inputs: PathBuf,
    #[arg(long, value_name = "FILE.npz")]
    pub outputs: PathBuf,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Model or run folder, or the name of a shipped model
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// input_ids and attention_mask of the prompts, padded on their left; or of the source text; or input_features, and
    /// decoder_input_ids if texts begin otherwise than generation_config.json says
    #[arg(long, value_name = "FILE.npz")]
    pub inputs: PathBuf,
    /// Gets `sequences`: prompt or start token, then what was written
    #[arg(long, value_name = "FILE.npz")]
    pub outputs: PathBuf,
    /// At most so many; the model's generation_config.json says otherwise
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// 1: one token after the other; more: beam search
    #[arg(long, value_name = "B")]
    pub num_beams: Option<usize>,
    /// Draw tokens by their probability, by --seed, as the model's generation_config.json may ask for
    #[arg(long)]
    pub sample: bool,
    /// Always the likeliest token
    #[arg(long, conflicts_with = "sample")]
    pub greedy: bool,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// bert-b1, gpt2-decode, train-bert-b8, ..; a wrong one lists all
    pub workload: String,
    /// Model folder, in place of the workload's own in $BENCH_ROOT/checkpoints
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum RecipeCommand {
    /// Names of the shipped recipes
    Ls,
    /// Print a shipped recipe
    Show { name: String },
    /// Copy a shipped recipe to a file of your own
    Cp { name: String, file: PathBuf },
    /// Check a recipe without running it
    Check {
        /// Recipe file, or the name of a shipped recipe
        recipe: String,
    },
    /// JSON Schema of recipes, for editors
    Schema,
    /// Every key with its meaning and default, as Markdown
    Reference,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Known data sets, and where they are
    Ls,
    /// Verify and unpack a data set into the cache
    Fetch { id: String },
    /// Describe a data set or a file, with its first rows; or draw a batch of an image recipe
    Show {
        /// Id, file, or with --output a recipe
        target: String,
        #[command(flatten)]
        columns: ColumnArgs,
        /// Write the training pictures of an image-classification recipe as its first step sees them
        #[arg(long, value_name = "FILE.png")]
        output: Option<PathBuf>,
    },
    /// What cleaning would drop, and why; bad rows; leaks between parts
    Check {
        target: String,
        #[command(flatten)]
        columns: ColumnArgs,
        /// Refuse the file at its first bad row
        #[arg(long)]
        strict: bool,
        /// Labels must be whole numbers
        #[arg(long)]
        integer_labels: bool,
        /// Write why each row was dropped
        #[arg(long, value_name = "FILE.jsonl")]
        ledger: Option<PathBuf>,
    },
    /// Do new texts still look like those that a model learned from?
    Drift(DriftArgs),
    /// Boxes on pictures from one format to another: PASCAL VOC, COCO, YOLO
    Boxes {
        /// Folder with Annotations/*.xml, COCO's .json file, or folder with data.yaml and *.txt
        source: PathBuf,
        /// Folder, or a file for COCO, that is not there yet
        target: PathBuf,
        #[arg(long, value_parser = Format::NAMES)]
        to: String,
    },
    /// Unpack a tar archive safely: no path outside, no link, no bomb
    Unpack { archive: PathBuf, folder: PathBuf },
}

#[derive(Debug, Args)]
pub struct DriftArgs {
    /// File with the new texts (their labels, if any, are not read)
    pub new: PathBuf,
    /// Id of a data set, or a file: what the model learned from
    #[arg(long, value_name = "PATH-or-ID")]
    pub reference: String,
    /// Part of the data set; train otherwise
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Fail with code 4 unless it holds: --require 'separability<=0.6' (repeatable)
    #[arg(long, value_name = "SCORE<=VALUE")]
    pub require: Vec<String>,
    #[command(flatten)]
    pub columns: ColumnArgs,
}

#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Names of the shipped models
    Ls,
    /// Family, parameters, dtypes, memory and tensors of a model or a file of weights, from its headers
    Inspect {
        /// Model folder, run folder, name of a shipped model, or a file
        #[arg(value_name = "MODEL-or-FILE")]
        model: PathBuf,
        /// Read all numbers, to find NaN and infinity; up to 16 MiB they are read anyway
        #[arg(long)]
        check: bool,
    },
    /// Load a model and save it again: as a folder, or as FILE.onnx or FILE.gguf
    Convert {
        #[arg(value_name = "MODEL")]
        source: String,
        target: PathBuf,
        /// Number type of the weights [default: f32, in a .gguf f16]
        #[arg(long, value_parser = ["f32", "f16", "bf16", "int8", "int4"])]
        dtype: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// All runs with their state and scores
    Ls,
    /// One run: scores, checkpoints, where its files are
    Show { name: String },
    /// Scores, curves and recipe differences of two or more runs; writes a page
    Compare {
        #[arg(required = true, num_args = 2.., value_name = "NAME")]
        names: Vec<String>,
        /// The page; compare.html in the folder of runs otherwise
        #[arg(long, value_name = "FILE.html")]
        output: Option<PathBuf>,
    },
    /// Delete a run folder
    Rm { name: String },
}

#[derive(Debug, Subcommand)]
pub enum NlpCommand {
    /// Is it positive? English or Chinese, found by itself
    Sentiment(SentimentArgs),
    /// Translate texts, or a file of any length line by line
    Translate(TranslateArgs),
    /// A tag for every word, a label for the sentence: parts of speech, slots, intents
    Tag {
        /// Texts; without any, one a line from stdin
        texts: Vec<String>,
        /// Model folder, run folder or shipped model
        #[arg(long)]
        model: String,
    },
    /// N-grams, a hidden Markov model, RNN, GRU, LSTM, BERT and GPT on one text: a table and a page
    Ladder(LadderArgs),
    /// Count n-grams of a text into an ARPA file, or say what a text costs one
    Ngram {
        #[command(subcommand)]
        command: NgramCommand,
    },
    /// One vector a text: a JSON line each
    Embed(EmbedArgs),
    /// Make an index folder of the texts in a folder, for `nlp search` and `nlp chat --docs`
    Index {
        /// Folder with texts; it is walked down
        docs: PathBuf,
        /// The index folder
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// Model folder of sentence-transformers
        #[arg(long, default_value = "all-MiniLM-L6-v2")]
        model: String,
    },
    /// Passages that mean the like of a question
    Search {
        /// Questions; without any, one a line from stdin
        questions: Vec<String>,
        /// Index folder, or a folder with texts
        #[arg(long, value_name = "DIR")]
        docs: PathBuf,
        /// Passages a question
        #[arg(long, default_value_t = 5, value_name = "N", value_parser = at_least_one)]
        top: usize,
    },
    /// Continue a text, or answer it with an encoder-decoder
    Generate {
        /// Model folder or run folder
        #[arg(long, value_name = "DIR")]
        model: String,
        /// Prompts; without any, one a line from stdin
        prompts: Vec<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Chinese verse in a given form, by a model that the recipe `poetry` made
    Poem {
        /// Title
        title: String,
        /// 五绝, 七绝, 五律 or 七律
        #[arg(long, default_value = "五绝")]
        form: String,
        /// Poems
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
        count: usize,
        #[arg(long, default_value = "poetry")]
        model: String,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Talk with a model that has a chat template
    Chat {
        /// Model folder or run folder
        #[arg(long, value_name = "DIR")]
        model: String,
        /// What the model is told before the first message
        #[arg(long, value_name = "TEXT")]
        system: Option<String>,
        /// Say this and end; without any, one message a line from stdin
        #[arg(long = "message", value_name = "TEXT")]
        messages: Vec<String>,
        /// Index folder, or a folder with texts, to answer from
        #[arg(long, value_name = "DIR")]
        docs: Option<PathBuf>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show the prompt that a chat template makes of messages
    Template {
        /// Model folder, or a tokenizer_config.json
        file: PathBuf,
        #[arg(long, value_name = "TEXT")]
        system: Option<String>,
        /// User and assistant by turns (repeatable)
        #[arg(long = "message", value_name = "TEXT", default_value = "Hello")]
        messages: Vec<String>,
    },
    /// Show how a tokenizer cuts a text
    Tokenize {
        /// Model folder, run folder, name of a shipped model, or a tokenizer.json
        #[arg(long, value_name = "MODEL")]
        tokenizer: String,
        #[arg(long)]
        text: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum SpeechCommand {
    /// Which word is it? In a longer recording: which words, and when
    Keyword(KeywordArgs),
    /// Write down what is said: by a model of your own, or a Whisper or Wav2Vec2 checkpoint
    Transcribe(TranscribeArgs),
    /// Where in a recording somebody speaks
    Voice {
        /// Recordings; `-` is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say a text, by espeak-ng
    Say(speech::SayArgs),
    /// Lights, sockets, thermostats and scenes over MQTT
    Home(speech::HomeArgs),
    /// Talk: timers, the time, sums, units, and the home, in English and Chinese
    Assistant(speech::AssistantArgs),
    /// Speech in one language to speech in another, while it comes
    Interpret(speech::InterpretArgs),
    /// Train a word of your own from ten recordings, and count its false alarms
    WakeWord(speech::WakeWordArgs),
    /// Count what a word spotter hears where nobody says its words
    FalseAlarms(speech::FalseAlarmsArgs),
}

#[derive(Debug, Args)]
pub struct TranscribeArgs {
    /// Recordings; `-` is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Model folder, run folder or shipped model; a Whisper or Wav2Vec2 checkpoint, too
    #[arg(long)]
    pub model: String,
    /// SubRip subtitles, of one recording
    #[arg(long, conflicts_with = "vtt")]
    pub srt: bool,
    /// WebVTT subtitles, of one recording
    #[arg(long)]
    pub vtt: bool,
    /// Of the speech, in place of what Whisper hears: en, de, zh, ..
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// Into English (Whisper)
    #[arg(long)]
    pub translate: bool,
    /// Listen to silence, too
    #[arg(long)]
    pub no_vad: bool,
}

#[derive(Debug, Args)]
pub struct KeywordArgs {
    /// Recordings; `-` is standard input
    #[arg(required_unless_present = "raw")]
    pub files: Vec<PathBuf>,
    /// Model folder, run folder or shipped model
    #[arg(long, default_value = "commands")]
    pub model: String,
    /// Listen to standard input for as long as it lasts: 16-bit mono samples at this rate, without a header
    #[arg(long, value_name = "HZ", conflicts_with = "files")]
    pub raw: Option<u32>,
    /// Seconds from look to look
    #[arg(long, default_value_t = 0.1, value_name = "S")]
    pub every: f64,
    /// Looks whose scores are averaged
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub smooth: usize,
    /// Average score that a word must have in a longer recording; one of up to two windows is a word by itself
    #[arg(long, default_value_t = 0.5, value_name = "P")]
    pub threshold: f32,
    /// Seconds after a word in which no other counts; otherwise as long as the word may still be seen
    #[arg(long, value_name = "S")]
    pub refractory: Option<f64>,
}

#[derive(Debug, Args)]
pub struct SentimentArgs {
    /// Texts; without any, one a line from stdin
    pub texts: Vec<String>,
    /// Texts from a file instead: .txt, .jsonl, .csv, .tsv, .parquet
    #[arg(long, value_name = "PATH", conflicts_with = "texts")]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Model folder, run folder or shipped model, instead of one chosen by language
    #[arg(long)]
    pub model: Option<String>,
    /// Say `neutral` where the model is less sure than this probability
    #[arg(long, value_name = "P", value_parser = probability)]
    pub neutral_below: Option<f32>,
    /// Show what each word adds to the answer, in nats of log-odds: integrated gradients
    #[arg(long)]
    pub explain: bool,
}

/// What `--run` may be.
fn run_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_string()).map_err(|problem| format!("it {problem}"))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
    (number > 0).then_some(number).ok_or_else(|| "it must be at least 1".into())
}

fn probability(text: &str) -> Result<f32, String> {
    let p: f32 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    (0.0..=1.0).contains(&p).then_some(p).ok_or_else(|| format!("{p} is not within 0 and 1"))
}

#[derive(Debug, Subcommand)]
pub enum NgramCommand {
    /// Interpolated modified Kneser-Ney, as KenLM's `lmplz --discount_fallback`
    Fit {
        /// Text file, a sentence a line
        text: PathBuf,
        /// The model goes there
        #[arg(long, value_name = "FILE.arpa")]
        output: PathBuf,
        /// Longest n-gram, in tokens
        #[arg(long, default_value_t = 5, value_name = "N")]
        order: usize,
        /// N-grams that occur so often or less are left out, by length; the last number is for all longer ones: 0,0,1
        #[arg(long, value_name = "COUNTS", value_delimiter = ',')]
        prune: Vec<u32>,
        #[arg(long, default_value = "word")]
        unit: NgramUnit,
    },
    /// Perplexity of a text under a model, as KenLM's `query`
    Score {
        /// ARPA file, by whatever program
        model: PathBuf,
        /// Text file, a sentence a line
        text: PathBuf,
        #[arg(long, default_value = "word")]
        unit: NgramUnit,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NgramUnit {
    /// What stands between white space
    Word,
    /// White space, too, as `<U+20>`
    Character,
}

#[derive(Debug, Args)]
pub struct LadderArgs {
    /// ptb, tinyshakespeare, or a text file
    pub data: String,
    /// Name of the folder among the runs
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub run: Option<String>,
    /// Passes of the neural models over the text
    #[arg(long, default_value_t = 1.0)]
    pub epochs: f64,
    /// States of the hidden Markov model
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    pub states: usize,
    /// Its rounds of Baum-Welch
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
}

#[derive(Debug, Args)]
pub struct TranslateArgs {
    /// Texts; without any, one a line from stdin
    pub texts: Vec<String>,
    /// Model folder, run folder or shipped model
    #[arg(long)]
    pub model: String,
    /// Text file, in place of texts; its lines stay lines
    #[arg(long, value_name = "PATH", conflicts_with = "texts")]
    pub input: Option<PathBuf>,
    /// The translation goes there instead of stdout
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Glossary: a term, a tab and its translation a line
    #[arg(long, value_name = "FILE.tsv")]
    pub terms: Option<PathBuf>,
    /// Open hypotheses, in place of the model's own number; 1 is greedy
    #[arg(long, value_name = "N")]
    pub num_beams: Option<usize>,
    /// A hypothesis' score is divided by its length to this power, in place of the model's own: above 0 long ones win
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// Sentences per batch, of which every thread computes one
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    pub batch_size: usize,
}

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Texts; without any, one a line from stdin
    pub texts: Vec<String>,
    /// Model folder of sentence-transformers
    #[arg(long, default_value = "all-MiniLM-L6-v2")]
    pub model: String,
    /// Texts from a file instead: .txt, .jsonl, .csv, .tsv, .parquet
    #[arg(long, value_name = "PATH", conflicts_with = "texts")]
    pub input: Option<PathBuf>,
    /// Where the lines go, stdout without it; as a table if it ends in .csv, .tsv or .parquet
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    pub batch_size: usize,
    #[command(flatten)]
    pub columns: ColumnArgs,
}

/// How to write; what is not given is as the model's generation_config.json says.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// At most so many tokens
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// 1: one token after the other; more: beam search
    #[arg(long, value_name = "B")]
    pub num_beams: Option<usize>,
    /// Above 0 long beams win
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// Draw tokens by their probability, by --seed
    #[arg(long)]
    pub sample: bool,
    /// Always the likeliest token
    #[arg(long, conflicts_with_all = ["sample", "temperature", "top_k", "top_p", "min_p"])]
    pub greedy: bool,
    /// Below 1 the likely become likelier; draws tokens
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Draw among the K likeliest, 0 among all; draws tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw among the likeliest that together have this probability; draws tokens
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Draw among those with this share of the likeliest one's probability; draws tokens
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Above 1 what was there before becomes less likely
    #[arg(long, value_name = "R")]
    pub repetition_penalty: Option<f32>,
    /// End before this text, and before the stop_strings of the model's file (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}
